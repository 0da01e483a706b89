"""The page's place in the server: found by its entry point, given what lies under its path and nothing else."""

from importlib.metadata import EntryPoints
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from serve import mounts
from serve.app.mounted import Mounted
from serve.settings import Settings


class Echo:
    """Answers with its name, and where it believes to be."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        told = {"name": self.name, "root": scope.get("root_path", ""), "path": request.url.path}
        await JSONResponse(told)(scope, receive, send)


class Factory:
    """Stands in for the page's entry point."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __getitem__(self, name: str) -> "Factory":
        return self

    def load(self) -> "Factory":
        return self

    def __call__(self, base_url: str) -> ASGIApp:
        self.asked.append(base_url)
        return Echo("page")


def test_only_what_lies_under_the_path_goes_to_the_page() -> None:
    client = TestClient(Mounted(Echo("api"), "/ui", Echo("page")))
    assert client.get("/ui/a/b").json() == {"name": "page", "root": "/ui", "path": "/ui/a/b"}
    assert client.get("/ui", follow_redirects=False).headers["location"] == "/ui/"
    for path in ("/uix", "/v1/ui/x", "/", "/UI/x"):
        assert client.get(path).json() == {"name": "api", "root": "", "path": path}


@pytest.mark.parametrize(
    ("host", "url"), [("127.0.0.1", "http://127.0.0.1:8001/v1"), ("0.0.0.0", "http://0.0.0.0:8001/v1"),
                      ("::1", "http://[::1]:8001/v1")],
)  # fmt: skip
def test_the_page_is_told_where_the_server_listens(monkeypatch: pytest.MonkeyPatch, host: str, url: str) -> None:
    """Also which address it is bound to: on the loopback the page may ask any other server."""
    factory = Factory()
    monkeypatch.setattr(mounts, "entry_points", lambda **_: factory)
    mounts.page(Settings(Path("model"), host=host, port=8001))
    assert factory.asked == [url]


def test_a_page_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts, "entry_points", lambda **_: EntryPoints([]))
    with pytest.raises(ValueError, match="ui: the page is not installed"):
        mounts.page(Settings(Path("model"), ui=True))
