"""One Chromium for the tests of pages: launch flags, contexts that record trouble, where screenshots go.

Import the fixture `chromium` and, for a page, use `open_page`. The executable is found by name, or named by
CLLM_TEST_CHROMIUM; without Playwright or a browser the tests fail.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

SCREENSHOTS = Path(__file__).parents[1] / "build" / "screenshots"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PATIENCE_MS = 120_000  # the machine may be busy with other work
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def executable() -> str | None:
    return os.environ.get("CLLM_TEST_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


@dataclass
class Trouble:
    """What a well-made page never does."""

    outside: list[str] = field(default_factory=list)  # requests to other hosts
    errors: list[str] = field(default_factory=list)  # uncaught exceptions in the page


@pytest.fixture(scope="module")  # its loop would be in the way of asyncio.run in other modules
def chromium() -> Iterator[Any]:
    from playwright import sync_api as playwright

    path = executable()
    if path is None:
        pytest.fail("no Chromium: set CLLM_TEST_CHROMIUM to its executable")
    with playwright.sync_playwright() as api:
        browser = api.chromium.launch(executable_path=path, args=FLAGS, timeout=PATIENCE_MS)
        yield browser
        browser.close()


@contextmanager
def open_page(browser: Any, url: str, width: int = 1600, height: int = 1000, dark: bool = False) -> Iterator[Any]:
    """A page in a context of its own; on leaving, it must have asked no other host for anything."""
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light")
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    trouble = Trouble()
    own = urlsplit(url).netloc
    page.on("request", lambda request: _note(trouble, own, request.url))
    page.on("pageerror", lambda error: trouble.errors.append(str(error)))
    page.on("console", lambda message: _hear(trouble, message))
    page.goto(url)
    try:
        yield page
    finally:
        context.close()
    assert trouble.outside == []
    assert trouble.errors == []


def screenshot(page: Any, name: str) -> Path:
    """Save what the page shows, in full length, under build/screenshots."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    path = SCREENSHOTS / f"{name}.png"
    page.screenshot(path=path, full_page=True, animations="disabled")
    return path


def _hear(trouble: Trouble, message: Any) -> None:
    if message.type == "error" and "Content Security Policy" in message.text:
        trouble.errors.append(message.text)


def _note(trouble: Trouble, own: str, url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("data", "blob") and parts.netloc != own:
        trouble.outside.append(url)
