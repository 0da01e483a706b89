"""What the parts of a running server share."""

from dataclasses import dataclass

from serve.keys import ApiKeys
from serve.preflight import Checkpoint
from serve.settings import Settings


@dataclass(frozen=True)
class Service:
    """A server that passed its checks.

    Args:
        settings: What was asked for.
        checkpoint: What is served.
        keys: Who may ask.
    """

    settings: Settings
    checkpoint: Checkpoint
    keys: ApiKeys
