"""Checkpoints and engines, made once per session; an engine is shared by all tests that can use it."""

import pytest

pytest.importorskip("vllm")

from tests import tiny_llama, vllm_engines
from tests.greedy import load_hf


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    return tiny_llama.write_base(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture(scope="session")
def dual(base):
    return tiny_llama.write_dual(base, base.parent / "dual")


@pytest.fixture(scope="session")
def engine(dual):
    return vllm_engines.start(dual)


@pytest.fixture(scope="session")
def hf(dual):
    return load_hf(dual)


@pytest.fixture(scope="session")
def prompts():
    return vllm_engines.prompts(32, len(tiny_llama.VOCABULARY))


@pytest.fixture(scope="session")
def answers(engine, prompts):
    """Greedy answers of the trained model, all prompts in one batch and nothing cached before."""
    engine.reset_prefix_cache()
    return vllm_engines.generate(engine, prompts, [1.0] * len(prompts))
