"""What the parts of a running server share."""

from dataclasses import dataclass

from starlette.types import ASGIApp

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
        page: What answers below `/ui`, if anything does.
    """

    settings: Settings
    checkpoint: Checkpoint
    keys: ApiKeys
    page: ASGIApp | None = None
