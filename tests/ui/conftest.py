"""A fake server, and the page in front of it, for the tests of the page."""

from collections.abc import Iterator

import pytest

from tests.ui.fake_server import FakeServer
from tests.ui.page_server import serve_page


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with FakeServer() as server:
        yield server


@pytest.fixture
def page_url(fake: FakeServer) -> Iterator[str]:
    with serve_page(fake.url) as url:
        yield url
