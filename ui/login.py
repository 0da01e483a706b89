"""Asks for a key or a password before the page is shown. An ASGI middleware.

What was typed is kept in this process's memory, under a random cookie that scripts cannot read and other sites cannot
send. It is never written down, and forgotten after `SESSION_S` or when the visitor logs out.
"""

import asyncio
import hmac
import secrets
import time
from http import HTTPStatus
from typing import Protocol

from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import get_route_path
from starlette.types import ASGIApp, Receive, Scope, Send

from ui.client import ChatClient
from ui.html.login import login_page
from ui.servers import NO_KEY, Server

SESSION_S = 12 * 3600.0
WRONG_S = 1.0  # before a wrong secret is answered: guessing takes its time
LONGEST_FORM = 4096


class Door(Protocol):
    """What must be typed to get in."""

    asks_for: str
    why: str

    async def is_open(self) -> bool:
        """Whether nobody needs to type anything."""
        ...

    async def accepts(self, secret: str) -> bool:
        """Whether this opens the page."""
        ...


class Password:
    """A password that all visitors share."""

    asks_for = "Password"
    why = "This page is protected by a password."

    def __init__(self, password: str) -> None:
        self._password = password.encode()

    async def is_open(self) -> bool:
        """Never."""
        return False

    async def accepts(self, secret: str) -> bool:
        """Compare in constant time."""
        return hmac.compare_digest(secret.encode(), self._password)


class ServerKey:
    """A key that the server itself accepts; open if the server asks for none.

    Args:
        url: The server's address.
    """

    asks_for = "API key"
    why = "The server asks for an API key. It is used for this page's requests and kept in memory only."

    def __init__(self, url: str) -> None:
        self._url, self._client = url, ChatClient()
        self._needs_none = False

    async def is_open(self) -> bool:
        """Ask the server, until it has once answered without a key."""
        self._needs_none = self._needs_none or await self.accepts(NO_KEY)
        return self._needs_none

    async def accepts(self, secret: str) -> bool:
        """Ask the server with the key."""
        return await self._client.accepts_key(Server(self._url, secret))


class Login:
    """Shows the page to visitors who are in, and the form to all others.

    Args:
        app: The page.
        door: What must be typed.
    """

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self._app, self._door = app, door
        self._cookie = f"cllm-ui-{secrets.token_hex(4)}"  # cookies know no ports: two pages must not share one
        self._sessions: dict[str, tuple[str, float]] = {}

    def secret_of(self, cookies: dict[str, str]) -> str | None:
        """Return what the visitor with these cookies typed; None if they did not, or too long ago."""
        token = cookies.get(self._cookie, "")
        secret, until = self._sessions.get(token, ("", 0.0))
        if until > time.monotonic():
            return secret
        self._sessions.pop(token, None)
        return None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or ask."""
        if scope["type"] != "http":  # the page has no websocket
            return await send({"type": "websocket.close", "code": 1008})
        request, path = Request(scope, receive), get_route_path(scope)
        if request.method == "POST" and path in ("/login", "/logout"):
            answer = await (self._log_in(request) if path == "/login" else self._log_out(request))
        elif self.secret_of(request.cookies) is not None or await self._door.is_open():
            return await self._app(scope, receive, send)
        elif request.method == "GET" and path == "/login":
            answer = self._form()
        elif request.method == "GET" and path in ("", "/"):
            answer = RedirectResponse(f"{scope.get('root_path', '')}/login", HTTPStatus.SEE_OTHER)
        else:
            answer = PlainTextResponse("Log in first.", HTTPStatus.UNAUTHORIZED)
        return await answer(scope, receive, send)

    async def _log_in(self, request: Request) -> Response:
        length = request.headers.get("content-length", "")
        if not length.isdecimal() or int(length) > LONGEST_FORM:
            return self._form("That is too long.", HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        secret = str((await request.form()).get("secret", "")).strip()
        if not _can_be_sent(secret) or not await self._door.accepts(secret):
            await asyncio.sleep(WRONG_S)
            return self._form(f"This {self._door.asks_for.lower()} was not accepted.", HTTPStatus.UNAUTHORIZED)
        token, now = secrets.token_urlsafe(32), time.monotonic()
        self._sessions = {old: kept for old, kept in self._sessions.items() if kept[1] > now}
        self._sessions[token] = (secret, now + SESSION_S)
        answer = self._home(request)
        is_https = request.url.scheme == "https"
        answer.set_cookie(self._cookie, token, httponly=True, samesite="strict", secure=is_https, path=_root(request))
        return answer

    async def _log_out(self, request: Request) -> Response:
        self._sessions.pop(request.cookies.get(self._cookie, ""), None)
        answer = self._home(request)
        answer.delete_cookie(self._cookie, path=_root(request))
        return answer

    def _home(self, request: Request) -> Response:
        return RedirectResponse(_root(request), HTTPStatus.SEE_OTHER)

    def _form(self, problem: str = "", status: HTTPStatus = HTTPStatus.OK) -> Response:
        page = login_page(self._door.asks_for, self._door.why, problem)
        return HTMLResponse(page, status, {"cache-control": "no-store"})


def _root(request: Request) -> str:
    return f"{request.scope.get('root_path', '')}/"


def _can_be_sent(secret: str) -> bool:
    """Whether a header can carry it: what cannot is no key, and must not fail in a client."""
    return bool(secret) and secret.isascii() and secret.isprintable()
