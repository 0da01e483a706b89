"""Sixteen requests, five control scales, an engine too small for them: each gets the answer that it would get alone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import mixed_batch, serving, tiny_models
from tests.greedy import assert_greedy, load_hf
from tests.vllm_engines import start

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def requests():
    return mixed_batch.sixteen(len(tiny_models.VOCABULARY))


@pytest.fixture(scope="module")
def lone(engine, requests):
    """Answers of an engine with room for all, asked one at a time."""
    return mixed_batch.alone(engine, requests)


@pytest.fixture(scope="module")
def tight(dual):
    return start(dual, **mixed_batch.TIGHT)


@pytest.fixture(scope="module")
def passes(tight, requests):
    return mixed_batch.twice(tight, requests)


def test_the_dial_matters(lone):
    """The first prompt's answers, one for each scale, differ, so none can be taken for another."""
    assert len({tuple(answer) for answer in lone[: len(mixed_batch.SCALES)]}) == len(mixed_batch.SCALES)


def test_answers_are_those_alone_and_hugging_faces(passes, hf, requests, lone):
    for found in passes:
        mixed_batch.check(found, hf, requests, lone)


def test_base_requests_get_the_base_models_answers(passes, base, requests):
    hf = load_hf(base)
    for found in passes:
        at_0 = [(one.prompt, answer) for one, answer in zip(requests, found.answers, strict=True) if one.scale == 0]
        assert_greedy(hf, *zip(*at_0, strict=True), [0.0] * len(at_0))


def test_without_the_salt_answers_are_wrong(tight, hf, requests):
    assert tight.reset_prefix_cache()
    unsalted = mixed_batch.stream(tight, requests, salted=False)
    assert unsalted.hits > 0
    assert mixed_batch.wrong(hf, requests, unsalted.answers)
    assert tight.reset_prefix_cache()
    assert not mixed_batch.wrong(hf, requests, mixed_batch.stream(tight, requests).answers)


def test_blocks_of_those_who_left_are_free_again(tight, requests):
    """The engine refuses to empty its prefix cache as long as a request holds a block."""
    engine = tight.llm_engine
    for name in "abc":
        mixed_batch.add(engine, name, requests[0])
    for _ in range(5):
        engine.step()
    engine.abort_request(["b"])
    assert not tight.reset_prefix_cache()
    engine.abort_request(["a", "c"])
    assert tight.reset_prefix_cache()


def test_the_v2_model_runner(dual, hf, requests, lone, tmp_path):
    """The runner of GPUs, its kernels interpreted, its model reading scales as a replayed CUDA graph does."""
    out = tmp_path / "found.json"
    subprocess.run(
        [sys.executable, "-m", "tests.v2_engine", dual, out], cwd=ROOT, check=True, env=serving.environment()
    )
    found = json.loads(out.read_text())
    assert found.pop("runner") == "vllm.v1.worker.cpu.model_runner"  # the V2 one; V1's is cpu_model_runner
    mixed_batch.check(mixed_batch.Pass(**found), hf, requests, lone)
