"""A fake server, and the page in front of it: one of each for a module's tests, as new for each test."""

from collections.abc import Iterator

import pytest

from tests.ui.fake_server import FakeServer
from tests.ui.page_server import serve_page


@pytest.fixture(scope="module")
def fake_server() -> Iterator[FakeServer]:
    with FakeServer() as server:
        yield server


@pytest.fixture
def fake(fake_server: FakeServer) -> FakeServer:
    fake_server.reset()
    return fake_server


@pytest.fixture(scope="module")
def page_url(fake_server: FakeServer) -> Iterator[str]:
    with serve_page(fake_server.url) as url:
        yield url
