"""Runs the page, or any other application, in a thread for the length of a test."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.ui.fake_server import wait_until


@contextmanager
def serve_app(app: Any) -> Iterator[str]:
    """Run an application in a thread and give its address."""
    import uvicorn

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="auto", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        wait_until(lambda: server.started)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(10)


@contextmanager
def serve_page(api_url: str, **settings: Any) -> Iterator[str]:
    """Run the page for a server, with settings of `ui.settings`, and give its address."""
    from ui.app import create_app
    from ui.settings import Settings

    with serve_app(create_app(Settings(api_url=api_url, **settings))) as url:
        yield url
