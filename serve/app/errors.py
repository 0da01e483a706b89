"""Refusals in OpenAI's error shape, for what answers before vLLM's handlers do, or is unknown to them."""

from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

_TYPES = {HTTPStatus.NOT_FOUND: "NotFoundError", HTTPStatus.UNAUTHORIZED: "AuthenticationError"}


def refusal(
    status: HTTPStatus, message: str, param: str | None = None, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """Return an answer that says why a request is refused.

    Args:
        status: HTTP status; its phrase names the type of the error, unless OpenAI's clients know a better one.
        message: What is wrong, and what would be right.
        param: The field that is wrong.
        headers: Headers of the answer.
    """
    error = {"message": message, "type": _TYPES.get(status, status.phrase), "param": param, "code": status.value}
    return JSONResponse({"error": error}, status, dict(headers or {}))


def unknown_model(model_id: str | None) -> JSONResponse:
    """Return the answer to a request for a model that is not served."""
    return refusal(HTTPStatus.NOT_FOUND, f"The model `{model_id}` does not exist.", "model")


def add_handlers(app: FastAPI) -> None:
    """Let errors that vLLM has no handler for be answered in the same shape."""
    app.add_exception_handler(HTTPException, _http_error)  # type: ignore[arg-type]
    app.add_exception_handler(RecursionError, _too_deep)


async def _http_error(request: Request, error: HTTPException) -> JSONResponse:
    return refusal(HTTPStatus(error.status_code), str(error.detail), headers=error.headers)


async def _too_deep(request: Request, error: Exception) -> JSONResponse:
    return refusal(HTTPStatus.BAD_REQUEST, "The body is nested too deeply.")
