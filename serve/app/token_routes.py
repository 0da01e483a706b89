"""Text to tokens and back: vLLM's own routes, which know no control scale, with bodies that are looked at closely."""

from http import HTTPStatus

from fastapi import APIRouter, Depends, Request, Response
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.entrypoints.serve.tokenize import api_router
from vllm.entrypoints.serve.tokenize.protocol import DetokenizeResponse, TokenizeResponse
from vllm.entrypoints.serve.utils.api_utils import validate_json_request

from serve.app.requests import (
    ExactDetokenizeRequest,
    ExactTokenizeChatRequest,
    ExactTokenizeCompletionRequest,
    check_text,
)

router = APIRouter(
    dependencies=[Depends(validate_json_request), Depends(check_text)],
    responses={HTTPStatus.NOT_FOUND.value: {"model": ErrorResponse}},
)


@router.post("/tokenize", responses={HTTPStatus.OK.value: {"model": TokenizeResponse}})
async def tokenize(
    request: ExactTokenizeCompletionRequest | ExactTokenizeChatRequest, raw_request: Request
) -> Response:
    """Return the tokens of a text or a chat."""
    return await api_router.tokenize(request, raw_request)


@router.post("/detokenize", responses={HTTPStatus.OK.value: {"model": DetokenizeResponse}})
async def detokenize(request: ExactDetokenizeRequest, raw_request: Request) -> Response:
    """Return the text of tokens."""
    return await api_router.detokenize(request, raw_request)
