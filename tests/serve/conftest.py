"""One real server for all tests here: the shipped checkpoint's, a tiny random one's where that does not exist."""

import httpx
import openai
import pytest

from tests import serving, tiny_models


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A tiny checkpoint for tests that start no engine."""
    directory = tmp_path_factory.mktemp("checkpoints")
    return tiny_models.write_dual(tiny_models.write_base(directory / "base"), directory / "tiny")


@pytest.fixture(scope="session")
def server(checkpoint):
    shipped = (serving.DEMO / "config.json").is_file()
    yield serving.shared(serving.DEMO, "demo") if shipped else serving.shared(checkpoint, "tiny")
    serving.stop_all()


@pytest.fixture(scope="session")
def ids(server):
    return [server.name, f"{server.name}:base"]


@pytest.fixture(scope="session")
def client(server):
    return openai.OpenAI(base_url=server.url, api_key="none", max_retries=0)


@pytest.fixture
def http(server):
    with httpx.Client(base_url=server.root, timeout=60) as session:
        yield session
