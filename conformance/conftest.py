"""One real server for all suites: `cllm serve` of the project's environment, while pytest runs in one of its own."""

import os
from collections.abc import Iterator
from pathlib import Path

# Before litellm and langchain are imported: neither asks the internet for prices, nor tells it about this run.
os.environ |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False", "LANGSMITH_TRACING": "false"}

import httpx
import openai
import pytest

from tests import serving

pytest.register_assert_rewrite("tests.serve.test_openai_client")

ROOT = Path(__file__).parents[1]
PYTHON = ROOT / ".venv" / "bin" / "python"
KEY = "a-key-of-this-run"
MAX_QUEUE = 32


@pytest.fixture(scope="session")
def server() -> Iterator[serving.Server]:
    """The demo, with a key and a short queue. Ends by SIGTERM with code 0, and has never answered with a 500."""
    started = serving.start(
        serving.DEMO, "demo", "--max-queue", MAX_QUEUE, python=PYTHON, CLLM_API_KEYS=KEY, CLLM_LOG_PROMPTS="true"
    )
    try:
        yield started
        metrics = httpx.get(f"{started.root}/metrics", headers={"Authorization": f"Bearer {KEY}"}).text
        assert 'cllm_refusals_total{reason="failed"}' not in metrics, f"see {started.log}"
    finally:
        code = serving.stop(started)
    assert code == 0, f"see {started.log}"


@pytest.fixture(scope="session")
def client(server: serving.Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.url, api_key=KEY, max_retries=0)
