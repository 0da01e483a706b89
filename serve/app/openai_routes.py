"""OpenAI's generation routes: vLLM's own, told beforehand which model id the request asked for."""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from vllm.entrypoints.openai.chat_completion.api_router import create_chat_completion
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.api_router import create_completion
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.serve.utils.api_utils import validate_json_request
from vllm.exceptions import VLLMValidationError

from cllm_model.vllm.request import RESERVED
from serve.app.strength import Strength, ask_for

router = APIRouter(dependencies=[Depends(validate_json_request)])


@router.post("/v1/chat/completions")
async def chat_completions(request: ChatCompletionRequest, raw_request: Request) -> Response:
    """Answer a chat as the model that was asked for."""
    return await _unknown_model(request, raw_request) or await create_chat_completion(request, raw_request)


@router.post("/v1/completions")
async def completions(request: CompletionRequest, raw_request: Request) -> Response:
    """Continue a text as the model that was asked for."""
    return await _unknown_model(request, raw_request) or await create_completion(request, raw_request)


async def _unknown_model(
    request: ChatCompletionRequest | CompletionRequest, raw_request: Request
) -> JSONResponse | None:
    """Note which model was asked for; return an answer only if there is no such model."""
    _refuse_reserved(request.vllm_xargs)
    state = raw_request.app.state
    settings = state.engine_client.settings
    model_id = request.model or settings.name
    scale = settings.ids.scale_of(model_id)
    if scale is None:
        error = await state.openai_serving_models.registry.check_model(model_id)
        return JSONResponse(error.model_dump(), status_code=error.error.code)
    ask_for(Strength(model_id, scale))
    return None


def _refuse_reserved(vllm_xargs: Mapping[str, Any] | None) -> None:
    for name in sorted(RESERVED & (vllm_xargs or {}).keys()):
        raise VLLMValidationError(
            f"vllm_xargs.{name} is set by the server; ask for a strength by the model id.",
            parameter=f"vllm_xargs.{name}",
        )
