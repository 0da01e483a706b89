"""The page as an ASGI application, and the server that `cllm ui` runs it with.

`mount` is the factory behind the entry point group `cllm.mounts`: another server of this project finds it by
name and mounts what it returns, without importing this package.
"""

import contextlib
import logging
import os
import signal
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from types import FrameType
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # before Gradio is imported, which reads it

import gradio as gr  # noqa: E402
import uvicorn  # noqa: E402

from ui.page import Page  # noqa: E402
from ui.settings import Settings  # noqa: E402
from ui.style import CSS, THEME  # noqa: E402

logger = logging.getLogger(__name__)
SHUTDOWN_S = 2


def create_app(settings: Settings) -> FastAPI:
    """The page of one server as an application of its own."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    return gr.mount_gradio_app(
        app,
        Page(settings).blocks,
        path="/",
        server_name=settings.host,
        server_port=settings.port,
        footer_links=[],
        run_history=False,
        show_error=False,
        ssr_mode=False,
        enable_monitoring=False,
        theme=THEME,
        css=CSS,
    )


def mount(base_url: str) -> ASGIApp:
    """The page for the server at `base_url`, to be mounted under any path of any ASGI host."""
    return _SelfStarting(create_app(replace(Settings(), api_url=base_url)))


class _SelfStarting:
    """Starts Gradio's queue with the first request: a mounted application is told no lifespan by its host."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._lifespan: AbstractAsyncContextManager[Any] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._lifespan is None:
            self._lifespan = self._app.router.lifespan_context(self._app)
            await self._lifespan.__aenter__()
        await self._app(scope, receive, send)


def serve(settings: Settings) -> None:
    """Serve the page until SIGINT or SIGTERM, then return."""
    config = uvicorn.Config(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        log_level="warning",
        timeout_graceful_shutdown=SHUTDOWN_S,
    )
    # uvicorn shuts down and then raises the signal again: being asked to end is not a failure.
    signal.signal(signal.SIGTERM, _asked_to_end)
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run()


def _asked_to_end(number: int, frame: FrameType | None) -> None:
    logger.info("signal %d: the page ends", number)
