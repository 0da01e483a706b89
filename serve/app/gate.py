"""Lets through the routes that are meant to be reachable, and closes all others.

vLLM's server has routes that know nothing of control scales, and more come with every version; an unknown one must not
answer as the wrong model. An ASGI middleware.
"""

from http import HTTPStatus

from starlette.routing import get_route_path
from starlette.types import ASGIApp, Receive, Scope, Send

from serve.app.errors import refusal, wrong_method

OPEN = {
    "/health",
    "/load",
    "/metrics",
    "/ping",
    "/ready",
    "/version",
    "/docs",
    "/openapi.json",
    "/detokenize",
    "/tokenize",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/control",
    "/v1/models",
}
"""Paths that are open, and those below `/v1/models/`."""

_MODELS = "/v1/models/"
_METRICS = "/metrics"
_READING = ("GET", "HEAD")


class Gate:
    """Answers 404 to every path that is not `OPEN`, and 405 to methods that the metrics would not look at."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or close it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif not is_open(path := get_route_path(scope)):
            await refusal(HTTPStatus.NOT_FOUND, f"{scope['path']}: no such route on this server")(scope, receive, send)
        elif path.rstrip("/") == _METRICS and scope["method"] not in _READING:
            await wrong_method(_READING)(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def is_open(path: str) -> bool:
    """Whether a path may be reached."""
    return path.rstrip("/") in OPEN or path.startswith(_MODELS)
