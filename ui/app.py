"""The page as an ASGI application, and the server that `cllm ui` runs it with.

`mount` is the factory behind the entry point group `cllm.mounts`: another server of this project finds it by
name and mounts what it returns, without importing this package.
"""

import asyncio
import contextlib
import logging
import os
import signal
from pathlib import Path
from types import FrameType

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # before Gradio is imported, which reads it

import gradio as gr  # noqa: E402
import uvicorn  # noqa: E402

from ui.headers import SafeHeaders  # noqa: E402
from ui.login import Door, Login, Password, ServerKey  # noqa: E402
from ui.page.dial import KEEP_ON_DIAL  # noqa: E402
from ui.page.page import Page  # noqa: E402
from ui.page.theme import THEME  # noqa: E402
from ui.servers import NO_KEY  # noqa: E402
from ui.settings import Settings, mounted_settings  # noqa: E402

logger = logging.getLogger(__name__)
SHUTDOWN_S = 2
STYLE = Path(__file__).parent / "page" / "style.css"


def create_app(settings: Settings, door: Door | None = None) -> ASGIApp:
    """Return the page of one server as an application of its own.

    Args:
        settings: What the page is told.
        door: What a visitor must type. What opens a `ServerKey` is the key for this visitor's requests.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    login = Login(app, door) if door else None

    def key_of(request: gr.Request) -> str:
        if login is None or not isinstance(door, ServerKey):
            return settings.api_key
        return (request.request and login.secret_of(request.request.cookies)) or NO_KEY

    gr.mount_gradio_app(
        app,
        Page(settings, key_of, can_log_out=login is not None).blocks,
        path="/",
        server_name=settings.host,
        server_port=settings.port,
        footer_links=[],
        run_history=False,
        show_error=False,
        ssr_mode=False,
        enable_monitoring=False,
        theme=THEME,
        css_paths=STYLE,
        js=KEEP_ON_DIAL,
    )
    return SafeHeaders(_SelfStarting(login or app, app))


def mount(base_url: str) -> ASGIApp:
    """Return the page for the server at `base_url`, to be mounted by that server under any path.

    The address is the one that the server listens on: a page that only its own machine can reach may ask any other
    server too. Where the server asks for an API key, so does the page.
    """
    settings = mounted_settings(base_url)
    return create_app(settings, ServerKey(settings.api_url))


class _SelfStarting:
    """Starts Gradio's queue with the first request: a mounted application is told no lifespan by its host."""

    def __init__(self, app: ASGIApp, gradio: FastAPI) -> None:
        self._app, self._gradio = app, gradio
        self._started = asyncio.Event()
        self._life: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._life is None:
            self._life = asyncio.create_task(self._live())
        if scope["type"] != "lifespan":
            await self._started.wait()
            await self._app(scope, receive, send)

    async def _live(self) -> None:
        """Run until the event loop ends, which cancels this."""
        async with self._gradio.router.lifespan_context(self._gradio):
            self._started.set()
            await asyncio.Event().wait()


def serve(settings: Settings) -> None:
    """Serve the page until SIGINT or SIGTERM, then return."""
    config = uvicorn.Config(
        create_app(settings, Password(settings.password) if settings.password else None),
        host=settings.host,
        port=settings.port,
        log_level="warning",
        lifespan="off",
        timeout_graceful_shutdown=SHUTDOWN_S,
    )
    # uvicorn shuts down and then raises the signal again: being asked to end is not a failure.
    signal.signal(signal.SIGTERM, _asked_to_end)
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run()


def _asked_to_end(number: int, frame: FrameType | None) -> None:
    logger.info("signal %d: the page ends", number)
