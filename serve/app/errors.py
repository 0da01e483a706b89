"""Refusals in OpenAI's error shape, for what answers before vLLM's handlers do, or is unknown to them."""

from collections.abc import Iterable, Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.routing import Match, Route

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


def wrong_method(allowed: Iterable[str]) -> JSONResponse:
    """Return the answer to a method that a path does not have, with those that it has."""
    status = HTTPStatus.METHOD_NOT_ALLOWED
    return refusal(status, status.phrase, headers={"Allow": ", ".join(sorted(allowed))})


def add_handlers(app: FastAPI) -> None:
    """Let errors that vLLM has no handler for be answered in the same shape."""
    app.add_exception_handler(HTTPException, _http_error)  # type: ignore[arg-type]
    app.add_exception_handler(RecursionError, _too_deep)


async def _http_error(request: Request, error: HTTPException) -> JSONResponse:
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return wrong_method(_methods(request))
    return refusal(HTTPStatus(error.status_code), str(error.detail), headers=error.headers)


async def _too_deep(request: Request, error: Exception) -> JSONResponse:
    return refusal(HTTPStatus.BAD_REQUEST, "The body is nested too deeply.")


def _methods(request: Request) -> set[str]:
    """All methods of a path; Starlette itself names only those of the first route that has it."""
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    same_path = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    return {method for route in same_path for method in route.methods or ()}
