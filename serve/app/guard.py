"""Asks for an API key before anything else is looked at. An ASGI middleware."""

from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.routing import get_route_path
from starlette.types import ASGIApp, Receive, Scope, Send

from serve.app.errors import refusal
from serve.keys import ApiKeys

PROBES = frozenset({"/health", "/ready"})
"""Paths without a key: orchestrators ask them, and learn one bit."""

_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="control-llm"'}


class Guard:
    """Answers 401 to every request without a key, except to `PROBES`.

    Args:
        app: What is guarded.
        keys: The keys; with none, everything passes.
    """

    def __init__(self, app: ASGIApp, keys: ApiKeys) -> None:
        self.app = app
        self.keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "lifespan" or not self.keys or self._is_allowed(scope):
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            message = "An API key is missing or wrong; send the header `Authorization: Bearer KEY`."
            await refusal(HTTPStatus.UNAUTHORIZED, message, headers=_CHALLENGE)(scope, receive, send)

    def _is_allowed(self, scope: Scope) -> bool:
        return get_route_path(scope) in PROBES or self.keys.allow(Headers(scope=scope).get("authorization"))
