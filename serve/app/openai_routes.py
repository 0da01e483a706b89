"""OpenAI's generation routes: vLLM's own, told beforehand which model and control scale the request asked for."""

from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from vllm.entrypoints.openai.chat_completion.api_router import create_chat_completion
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionResponse
from vllm.entrypoints.openai.completion.api_router import create_completion
from vllm.entrypoints.openai.completion.protocol import CompletionResponse
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.entrypoints.serve.utils.api_utils import validate_json_request

from serve.app.engine import ControlEngine
from serve.app.errors import unknown_model
from serve.app.limits import check_limits
from serve.app.metrics import count_request
from serve.app.requests import ControlChatRequest, ControlCompletionRequest, ControlRequest, check_text, refuse_ignored
from serve.app.strength import ask_for, read_strength

_ERRORS = (HTTPStatus.NOT_FOUND, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
_ANSWERS: dict[int | str, dict[str, Any]] = {status.value: {"model": ErrorResponse} for status in _ERRORS}
_STREAM: dict[str, Any] = {"content": {"text/event-stream": {}}}

router = APIRouter(dependencies=[Depends(validate_json_request), Depends(check_text)], responses=_ANSWERS)


@router.post("/v1/chat/completions", responses={HTTPStatus.OK.value: {"model": ChatCompletionResponse, **_STREAM}})
async def chat_completions(request: ControlChatRequest, raw_request: Request) -> Response:
    """Answer a chat as the model that was asked for."""
    return _unknown_model(request, raw_request) or await create_chat_completion(request, raw_request)


@router.post("/v1/completions", responses={HTTPStatus.OK.value: {"model": CompletionResponse, **_STREAM}})
async def completions(request: ControlCompletionRequest, raw_request: Request) -> Response:
    """Continue a text as the model that was asked for."""
    return _unknown_model(request, raw_request) or await create_completion(request, raw_request)


def _unknown_model(request: ControlRequest, raw_request: Request) -> Response | None:
    """Note what was asked for; return an answer only if there is no such model."""
    engine: ControlEngine = raw_request.app.state.engine_client
    settings = engine.settings
    strength = read_strength(settings, request.model, request.control_scale)
    if strength is None:
        return unknown_model(request.model)
    refuse_ignored(request, has_priorities=engine.vllm_config.scheduler_config.policy == "priority")
    check_limits(request, settings)
    ask_for(strength)
    raw_request.state.strength = strength
    count_request(strength.scale)
    return None
