"""Which model id and control scale the HTTP request at hand asked for.

Set by a route, read wherever vLLM's code answers that request: a context variable, so every request has its own. A
path that set nothing gets no answer, which keeps a route that we do not know from answering as the wrong model.
"""

from contextvars import ContextVar
from typing import NamedTuple

from vllm.exceptions import VLLMValidationError

from cllm_model.scale import check_scale
from serve.settings import Settings


class Strength(NamedTuple):
    """A model id, as it was asked for, and a control scale."""

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


def read_strength(settings: Settings, model: str | None, control_scale: float | None = None) -> Strength | None:
    """Return what a request asks for by its model id and its field `control_scale`; None if there is no such model.

    Raises:
        VLLMValidationError: A scale is not allowed, or id and field name different ones.
    """
    ids = settings.ids
    model_id = model or ids.name
    try:
        scale = ids.scale_of(model_id)
    except ValueError as error:
        raise VLLMValidationError(str(error), parameter="model") from error
    if scale is None:
        return None
    if control_scale is None:
        return Strength(model_id, scale)
    try:
        wanted = check_scale(control_scale, max_scale=settings.max_scale)
    except ValueError as error:
        raise VLLMValidationError(str(error), parameter="control_scale") from error
    if ids.fixes(model_id) and wanted != scale:
        raise VLLMValidationError(
            f"control_scale: {wanted:g} contradicts the model {model_id!r}, which is {scale:g}; send one of them.",
            parameter="control_scale",
        )
    return Strength(model_id, wanted)
