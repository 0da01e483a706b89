"""Lets through the routes that are meant to be reachable, and closes all others.

vLLM's server has routes that know nothing of control scales, and more come with every version; an unknown one must not
answer as the wrong model. An ASGI middleware.
"""

from starlette.responses import JSONResponse
from starlette.routing import get_route_path
from starlette.types import ASGIApp, Receive, Scope, Send

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


class Gate:
    """Answers 404 to every path that is not `OPEN`."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or close it."""
        if scope["type"] == "lifespan" or _is_open(scope):
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await _not_found(scope["path"])(scope, receive, send)


def _is_open(scope: Scope) -> bool:
    path = get_route_path(scope)
    return scope["type"] == "http" and (path.rstrip("/") in OPEN or path.startswith(_MODELS))


def _not_found(path: str) -> JSONResponse:
    error = {"message": f"{path}: no such route on this server", "type": "NotFoundError", "param": None, "code": 404}
    return JSONResponse({"error": error}, status_code=404)
