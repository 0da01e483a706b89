"""Hands what lies under one path to another application, before anything else sees it. An ASGI middleware.

The page asks the server over HTTP like any client; keys, limits and the log apply to those requests. Its own requests
need no key of the API, for it has a login of its own.
"""

from starlette.responses import RedirectResponse
from starlette.routing import get_route_path
from starlette.types import ASGIApp, Receive, Scope, Send


class Mounted:
    """Answers `path` and all below it by `page`.

    Args:
        app: What answers all other paths.
        path: Such as `/ui`.
        page: An application that reads its place from the scope's `root_path`.
    """

    def __init__(self, app: ASGIApp, path: str, page: ASGIApp) -> None:
        self.app = app
        self.path = path
        self.page = page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request to the page or on."""
        asked = get_route_path(scope) if scope["type"] == "http" else ""
        if asked == self.path:
            await RedirectResponse(f"{scope['path']}/")(scope, receive, send)
        elif asked.startswith(f"{self.path}/"):
            await self.page({**scope, "root_path": scope.get("root_path", "") + self.path}, receive, send)
        else:
            await self.app(scope, receive, send)
