"""Which model id the HTTP request at hand asked for, and the control scale that it means.

Set by a route, read wherever vLLM's code answers that request: a context variable, so every request has its own. A
path that set nothing gets no answer, which keeps a route that we do not know from answering as the wrong model.
"""

from contextvars import ContextVar
from typing import NamedTuple

from vllm.exceptions import VLLMValidationError


class Strength(NamedTuple):
    """A model id and the control scale that it means."""

    model_id: str
    scale: float


_asked: ContextVar[Strength] = ContextVar("control_llm_strength")


def ask_for(strength: Strength) -> None:
    """Say what the request at hand asked for."""
    _asked.set(strength)


def asked_for() -> Strength:
    """Return what the request at hand asked for.

    Raises:
        VLLMValidationError: Its route said nothing; vLLM's server answers with 400.
    """
    strength = _asked.get(None)
    if strength is None:
        raise VLLMValidationError("This route does not say which model answers, so it is closed.", parameter="model")
    return strength
