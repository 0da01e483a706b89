"""The server of the shipped checkpoint, for tests of whole paths."""

import pytest

from tests import serving


@pytest.fixture(scope="session")
def demo_server():
    """`cllm serve demo/model`, with `.url` (ending in /v1) and `.name`."""
    if not (serving.DEMO / "config.json").is_file():
        pytest.skip("there is no demo checkpoint yet")
    pytest.importorskip("vllm")
    yield serving.shared(serving.DEMO, "demo")
    serving.stop_all()
