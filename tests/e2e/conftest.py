"""The server of the shipped checkpoint, for tests of whole paths."""

import pytest

from tests import serving


@pytest.fixture(scope="session")
def demo_server():
    """`cllm serve demo/model`, with `.url` (ending in /v1) and `.name`."""
    yield serving.shared(serving.DEMO, "demo")
    serving.stop_all()
