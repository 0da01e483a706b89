"""Checkpoints and engines, made once per session; an engine is shared by all tests that can use it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from tests import tiny_models, vllm_engines
from tests.greedy import load_hf
from training import skills

DEMO = Path(__file__).parents[2] / "demo" / "model"


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    return tiny_models.write_base(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture(scope="session")
def dual(base):
    return tiny_models.write_dual(base, base.parent / "dual")


@pytest.fixture(scope="session")
def engine(dual):
    return vllm_engines.start(dual)


@pytest.fixture(scope="session")
def hf(dual):
    return load_hf(dual)


@pytest.fixture(scope="session")
def prompts():
    return vllm_engines.prompts(32, len(tiny_models.VOCABULARY))


@dataclass(frozen=True)
class Case:
    """A checkpoint, the same in Hugging Face, and 32 prompts for it."""

    path: Path
    hf: Any
    prompts: list[list[int]]


@pytest.fixture(scope="session")
def case(dual, prompts):
    """The shipped checkpoint with requests of its own skills; a tiny random one where that does not exist."""
    if not (DEMO / "config.json").is_file():
        return Case(dual, load_hf(dual), prompts)
    tokenizer = AutoTokenizer.from_pretrained(DEMO)
    requests = [example.prompt for name in skills.SKILLS for example in skills.unique(name, "test", 4, seed=0)]
    chats = [[{"role": "user", "content": request}] for request in requests[:32]]
    rendered = tokenizer.apply_chat_template(chats, add_generation_prompt=True)
    return Case(DEMO, load_hf(DEMO), rendered["input_ids"])
