"""The bodies of requests: vLLM's own request models, with `control_scale` where text is generated, and nothing ignored.

vLLM ignores fields that it does not know, and some that it knows where they have no effect, and it takes `true` for 1
and "2" for 2. Here each is a 400.
"""

import json
from typing import Annotated, Any, Self

from fastapi import Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ModelWrapValidatorHandler, model_validator
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.serve.tokenize.protocol import DetokenizeRequest, TokenizeChatRequest, TokenizeCompletionRequest
from vllm.exceptions import VLLMValidationError

from cllm_model.scale import MAX_SCALE, MIN_SCALE, check_scale
from cllm_model.vllm.request import SCALE_KEY

_SCALE = "control_scale"
_TEXT = "count from 3 to 8"
_MESSAGES = [{"role": "user", "content": _TEXT}]
_SHORT = {"max_tokens": 16, _SCALE: 0.5}
_NO_EFFECT = {
    "kv_transfer_params": "no KV connector is configured",
    "ec_transfer_params": "no encoder cache connector is configured",
    "return_token_offsets": "only rendering routes return them",
    "return_mm_kwargs": "only rendering routes return them",
    "mm_payload": "only rendering routes return it",
    "routed_experts_prompt_start": "the model has no experts",
}
_BEAM_SEARCH_TAKES = {
    *("model", _SCALE, "messages", "prompt", "stream", "n", "max_tokens", "max_completion_tokens", "ignore_eos"),
    *("use_beam_search", "temperature", "length_penalty", "include_stop_str_in_output", "skip_special_tokens", "user"),
    *("echo", "cache_salt", "request_id", "session_id", "return_token_ids", "logprobs", "top_logprobs"),
    *("add_special_tokens", "add_generation_prompt", "continue_final_message", "chat_template_kwargs", "tools"),
    *("truncate_prompt_tokens", "truncation_side", "return_tokens_as_token_ids", "documents", "priority"),
}


def _check(value: Any) -> float | None:
    try:
        return None if value is None else check_scale(value)
    except ValueError as error:
        raise VLLMValidationError(str(error), parameter=_SCALE) from error


ControlScale = Annotated[
    Annotated[float, Field(ge=MIN_SCALE, le=MAX_SCALE)] | None,
    BeforeValidator(_check),
    Field(
        description=(
            "Strength between the base model (0) and the model as trained (1), extrapolated above 1; rounded to "
            "steps of 0.0001. The server may allow less, see `max` of `GET /v1/control`, which also names the default."
        ),
    ),
]


class _Exact(BaseModel):
    """A body that vLLM checks, without a failure of these checks themselves."""

    @model_validator(mode="wrap")
    @classmethod
    def _refuse_odd_types(cls, body: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Answer 400 where vLLM looks into a field before its type is known to be right."""
        try:
            return handler(body)
        except (AttributeError, KeyError, TypeError) as error:
            raise VLLMValidationError(f"A field of the body is not of the type that it must be: {error}.") from error


def _exactly(**example: Any) -> ConfigDict:
    """Refuse unknown fields, and values that would have to be converted; document an example."""
    return ConfigDict(extra="forbid", strict=True, json_schema_extra={"examples": [example]})


class ControlChatRequest(_Exact, ChatCompletionRequest):
    """Body of `/v1/chat/completions`."""

    model_config = _exactly(messages=_MESSAGES, **_SHORT)

    control_scale: ControlScale = None


class ControlCompletionRequest(_Exact, CompletionRequest):
    """Body of `/v1/completions`."""

    model_config = _exactly(prompt=_TEXT, **_SHORT)

    control_scale: ControlScale = None


class ExactTokenizeChatRequest(_Exact, TokenizeChatRequest):
    """Body of `/tokenize`, for a chat."""

    model_config = _exactly(messages=_MESSAGES)


class ExactTokenizeCompletionRequest(_Exact, TokenizeCompletionRequest):
    """Body of `/tokenize`, for a text."""

    model_config = _exactly(prompt=_TEXT)


class ExactDetokenizeRequest(_Exact, DetokenizeRequest):
    """Body of `/detokenize`."""

    model_config = _exactly(tokens=[5, 6, 7])


ControlRequest = ControlChatRequest | ControlCompletionRequest


async def check_text(raw_request: Request) -> None:
    """Refuse half surrogate pairs, which JSON can spell and UTF-8 cannot: vLLM fails on them in many places.

    Raises:
        VLLMValidationError: The body holds one.
    """
    body: bytes = raw_request.state.body
    if b"\\ud" not in body.lower():
        return
    try:
        json.dumps(json.loads(body), ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise VLLMValidationError("The body holds half a surrogate pair, which is no character.") from error


def refuse_ignored(request: ControlRequest, *, has_priorities: bool) -> None:
    """Refuse fields that belong to the server, or would have no effect.

    Args:
        request: A request's body.
        has_priorities: The engine schedules by priority.

    Raises:
        VLLMValidationError: Names the field.
    """
    if SCALE_KEY in (request.vllm_xargs or {}):
        field = f"vllm_xargs.{SCALE_KEY}"
        raise VLLMValidationError(f"{field} is set by the server; use control_scale.", parameter=field)
    given = {name for name in request.model_fields_set if _differs(request, name)}
    if "priority" in given and not has_priorities:
        raise VLLMValidationError("priority has no effect here: see --scheduling-policy.", parameter="priority")
    for name in sorted(given & _NO_EFFECT.keys()):
        raise VLLMValidationError(f"{name} has no effect here: {_NO_EFFECT[name]}.", parameter=name)
    if request.use_beam_search:
        for name in sorted(given - _BEAM_SEARCH_TAKES):
            raise VLLMValidationError(f"{name} has no effect on a beam search.", parameter=name)


def _differs(request: ControlRequest, name: str) -> bool:
    field = type(request).model_fields[name]
    return bool(getattr(request, name) != field.get_default(call_default_factory=True))
