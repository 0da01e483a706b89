"""Lets a generation request in, or turns it away at once when the server is full or not there. An ASGI middleware."""

from http import HTTPStatus

from starlette.datastructures import MutableHeaders
from starlette.routing import get_route_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.app.engine import ControlEngine
from serve.app.errors import refusal

GENERATING = frozenset({"/v1/chat/completions", "/v1/completions"})
_RETRY_AFTER_S = "1"
_BUSY = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)


class Admission:
    """Answers 429 when `max_queue` requests run or wait, 503 while the engine is not ready or the server drains.

    Both say when to come back, and so do vLLM's own answers with these codes.

    Args:
        app: What generates.
        max_queue: Most requests at a time.
    """

    def __init__(self, app: ASGIApp, max_queue: int) -> None:
        self.app = app
        self.max_queue = max_queue

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or turn it away."""
        if scope["type"] != "http" or get_route_path(scope) not in GENERATING:
            return await self.app(scope, receive, send)

        async def send_with_hint(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] in _BUSY:
                MutableHeaders(scope=message).setdefault("retry-after", _RETRY_AFTER_S)
            await send(message)

        engine: ControlEngine = scope["app"].state.engine_client
        if not engine.is_ready:
            why = "is shutting down" if engine.traffic.is_draining else "is not ready"
            busy = refusal(HTTPStatus.SERVICE_UNAVAILABLE, f"The server {why}; try again later.")
            return await busy(scope, receive, send_with_hint)
        if engine.traffic.running >= self.max_queue:
            full = f"The server has {self.max_queue} requests already, as many as it takes; try again later."
            return await refusal(HTTPStatus.TOO_MANY_REQUESTS, full)(scope, receive, send_with_hint)
        with engine.traffic.one():
            return await self.app(scope, receive, send_with_hint)
