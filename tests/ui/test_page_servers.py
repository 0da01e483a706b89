"""Any server as either side, and who may come in: other addresses and their keys, the login, the mounted page."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI

from tests.browser import chromium, open_page
from tests.ui.browsing import answered, choose, downloaded, has, kept, ready, send, text
from tests.ui.fake_server import FakeServer
from tests.ui.page_server import serve_app, serve_page

__all__ = ["chromium"]
KEY = "sk-other-server-key"


@pytest.fixture
def other() -> Iterator[FakeServer]:
    with FakeServer("plain") as server:
        server.has_dial, server.key = False, KEY
        yield server


def connect(page: Any, side: str, url: str, key: str = "") -> None:
    page.fill(f"#{side}-url input", url)
    page.fill(f"#{side}-key input", key)
    page.click(f"#{side}-connect")


def test_another_server_with_its_own_key(
    chromium: Any, page_url: str, fake: FakeServer, other: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    other.plan("plain", pieces=["from elsewhere"])
    with caplog.at_level(logging.DEBUG), open_page(chromium, page_url) as page:
        ready(page)
        choose(page, "left", "Other")
        connect(page, "left", "http://127.0.0.1:9/v1")
        has(page, "left-note", "No server answers at http://127.0.0.1:9/v1.")
        connect(page, "left", "nonsense")
        has(page, "left-note", "is not an http:// or https:// address")
        connect(page, "left", other.url, "wrong")
        has(page, "left-note", "does not accept the API key")
        connect(page, "left", other.url, KEY)
        has(page, "left-note", f"Connected to {other.url}; the key is kept for this session only.")
        has(page, "left-title", "plain")
        send(page, "Hello")
        answered(page, "left")
        answered(page, "right")
        assert page.locator("#left-log .by").inner_text() == f"Model on 127.0.0.1:{other.port} plain"
        assert "from elsewhere" in text(page, "left-log") and "w11" in text(page, "right-log")
        page.click("#export > button")
        exported = [downloaded(page, f"export-{kind}")[1] for kind in ("jsonl", "md")]
        page.wait_for_function("localStorage.length > 0")
        assert KEY not in "".join([*exported, kept(page), page.content()])
        page.reload()
        has(page, "left-log", "from elsewhere")
        page.click("#left-again")
        has(page, "left-log", "Press “Connect” first")
    assert KEY not in caplog.text
    assert [h["authorization"] for h in other.headers] == [f"Bearer {KEY}"]
    assert all(h["authorization"] == "Bearer none" for h in fake.headers)


def test_a_plain_server_is_compared_with_itself(chromium: Any, fake: FakeServer) -> None:
    fake.has_dial = False
    with serve_page(fake.url) as url, open_page(chromium, url) as page:
        has(page, "status", "no dial there")
        has(page, "left-title", "demo")
        page.fill("#prompt textarea", "Hello")
        page.click("#send")
        answered(page, "left")
        answered(page, "right")
    assert [request["model"] for request in fake.requests] == ["demo", "demo"]


def test_a_page_that_others_reach_asks_no_free_address(chromium: Any, fake: FakeServer, other: FakeServer) -> None:
    with serve_page(fake.url, host="0.0.0.0") as url, open_page(chromium, url) as page:
        ready(page)
        choose(page, "left", "Other")
        connect(page, "left", other.url, KEY)
        has(page, "left-note", f"is not allowed on this page; allowed: {fake.url}.")
    assert other.headers == []


def test_a_password(chromium: Any, fake: FakeServer) -> None:
    from ui.app import create_app
    from ui.login import Password
    from ui.settings import Settings

    app = create_app(Settings(api_url=fake.url, api_key="none"), Password("pa55word"))
    with serve_app(app) as url, open_page(chromium, url) as page:
        assert page.request.get(f"{url}/config").status == 401
        page.fill("#secret", "guess")
        page.click("button")
        page.wait_for_selector("[role=alert]:has-text('was not accepted')")
        page.fill("#secret", "pa55word")
        page.click("button")
        send(page, "Hello")
        answered(page, "left")
        (cookie,) = page.context.cookies()
        assert cookie["httpOnly"] and cookie["sameSite"] == "Strict"
        page.click("#log-out button")
        page.wait_for_selector("#secret")
        assert page.request.get(f"{url}/config").status == 401


def test_mounted_under_a_path_with_the_visitor_s_key(chromium: Any, fake: FakeServer) -> None:
    from ui.app import mount

    fake.key = "visitor-key"
    host = FastAPI()
    host.mount("/ui", mount(fake.url))
    with serve_app(host) as url, open_page(chromium, f"{url}/ui/", width=400, height=850) as page:
        page.fill("#secret", "visitor-key")
        page.click("button")
        send(page, "Hello")
        answered(page, "left")
        assert "visitor-key" not in page.content() + kept(page)
        assert page.url == f"{url}/ui/"
    assert {h["authorization"] for h in fake.headers} == {"Bearer visitor-key"}


def test_mounted_by_a_server_that_asks_for_no_key(chromium: Any, fake: FakeServer) -> None:
    from ui.app import mount

    host = FastAPI()
    host.mount("/page", mount(fake.url))
    with serve_app(host) as url, open_page(chromium, f"{url}/page/") as page:
        send(page, "Hello")
        answered(page, "left")
        headers = page.request.get(f"{url}/page/").headers
    assert "default-src 'self'" in headers["content-security-policy"]
