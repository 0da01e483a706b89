"""Takes a request's body in before anything parses it, up to a size and within a time. An ASGI middleware.

A client that reads its answer only after it has sent everything would lose an answer that comes early, because the
connection is closed on it; so what it goes on sending is thrown away for a moment.
"""

import asyncio
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.app.errors import refusal

_LINGER_S = 5.0


class BodyLimit:
    """Answers 413 to bodies that are too large, and 408 to those that take too long.

    Args:
        app: What gets the body, in one piece.
        max_bytes: Size of the largest body.
        seconds: Time that a body may take.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, seconds: float) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with its whole body, or refuse it."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        length = Headers(scope=scope).get("content-length", "")
        if length.isdecimal() and int(length) > self.max_bytes:
            return await self._refuse(self._too_large(), receive, send)
        try:
            async with asyncio.timeout(self.seconds):
                body = await self._read(receive)
        except TimeoutError:
            late = refusal(HTTPStatus.REQUEST_TIMEOUT, f"The body took longer than {self.seconds:g} seconds.")
            return await self._refuse(late, receive, send)
        except _Gone:
            return None
        if body is None:
            return await self._refuse(self._too_large(), receive, send)
        scope.setdefault("state", {})["body"] = body
        return await self.app(scope, _replayed(body, receive), send)

    async def _read(self, receive: Receive) -> bytes | None:
        """Return the body, None if it is too large."""
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Gone
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self.max_bytes:
                return None
        return bytes(body)

    def _too_large(self) -> Response:
        message = f"The body is larger than the {self.max_bytes} bytes that this server takes."
        return refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message)

    async def _refuse(self, answer: Response, receive: Receive, send: Send) -> None:
        answer.headers["connection"] = "close"
        await send({"type": "http.response.start", "status": answer.status_code, "headers": answer.raw_headers})
        await send({"type": "http.response.body", "body": answer.body, "more_body": True})
        try:
            async with asyncio.timeout(_LINGER_S):
                while (await receive()).get("more_body", False):
                    pass
        except TimeoutError:
            pass
        await send({"type": "http.response.body"})


class _Gone(Exception):
    """The client left before its body was complete."""


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Return what gives the body once, then waits for the client to leave."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
