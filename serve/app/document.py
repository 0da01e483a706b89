"""The OpenAPI document: only open routes, the API key, and also the answers that come from before a route."""

from http import HTTPStatus
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from serve.app.gate import is_open
from serve.app.guard import PROBES

_KEY = "key"
_UNPROCESSABLE = "422"  # FastAPI's own, instead of which vLLM's server answers 400
_ANY_ROUTE = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.INTERNAL_SERVER_ERROR,
)
_ERROR = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorResponse"}}}


def describe(app: FastAPI, *, needs_key: bool) -> None:
    """Let the document of an app say what is so, once all routes are there.

    Args:
        app: The server.
        needs_key: It asks for an API key.
    """
    for route in app.routes:
        if isinstance(route, APIRoute):
            route.include_in_schema &= is_open(route.path)
    app.title, app.version = "Control LLM runtime", version("control-llm-runtime")
    build = app.openapi

    def document() -> dict[str, Any]:
        built = build()  # made once, so that this must do no harm the second time
        if needs_key:
            built["components"]["securitySchemes"] = {_KEY: {"type": "http", "scheme": "bearer"}}
        for path, operations in built["paths"].items():
            for operation in operations.values():
                _complete(operation, needs_key and path not in PROBES)
        return built

    app.openapi = document  # type: ignore[method-assign]


def _complete(operation: dict[str, Any], needs_key: bool) -> None:
    answers = operation["responses"]
    answers.pop(_UNPROCESSABLE, None)
    statuses = [*_ANY_ROUTE, HTTPStatus.UNAUTHORIZED] if needs_key else _ANY_ROUTE
    for status in statuses:
        answers.setdefault(str(status.value), {"description": status.phrase, "content": _ERROR})
    if needs_key:
        operation["security"] = [{_KEY: []}]
