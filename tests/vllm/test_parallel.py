"""Two workers give what one process gives: tensor parallel, and the two stages of a pipeline."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import serving, tiny_models
from tests.greedy import assert_greedy, load_hf, logprob_errors
from tests.vllm_engines import prompts

ROOT = Path(__file__).parents[2]
SCALES = [1.0, 0.0, 0.5, 1.7] * 3
SMALL = {"kv_cache_memory_bytes": 2**24, "max_num_seqs": 16}


@pytest.fixture(scope="module")
def asked():
    return prompts(len(SCALES), len(tiny_models.VOCABULARY))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A linear and a non-linear merge method, in both kinds of expansion; KV heads that are split, and copied."""
    directory = tmp_path_factory.mktemp("parallel")
    llama = tiny_models.write_base(directory / "llama", num_key_value_heads=2)
    qwen = tiny_models.write_base(directory / "qwen", family="qwen3")
    return [
        tiny_models.write_dual(llama, directory / "dlerp", "dlerp", layers=4, kind="hybrid"),
        tiny_models.write_dual(qwen, directory / "slerp", "slerp"),
    ]


def run(directory, paths, asked, **options):
    """Ask engines in another process, one core for each of two workers."""
    asking = {"options": SMALL | options, "prompts": asked, "scales": SCALES, "tokens": 24}
    files = directory / "asked.json", directory / "answers.json"
    files[0].write_text(json.dumps([{"path": str(path), **asking} for path in paths]))
    subprocess.run(
        [sys.executable, "-m", "tests.parallel_engine", *files],
        cwd=ROOT, check=True, env=serving.environment(VLLM_CPU_OMP_THREADS_BIND="0|1"),
    )  # fmt: skip
    return json.loads(files[1].read_text())


def check(path, asked, answers):
    hf, tokens = load_hf(path), [answer["tokens"] for answer in answers]
    assert_greedy(hf, asked, tokens, SCALES)
    found = [
        [{int(token): value for token, value in step.items()} for step in answer["logprobs"]] for answer in answers
    ]
    assert logprob_errors(hf, asked, tokens, SCALES, found).max() < 1e-3


def test_tensor_parallel(models, asked, tmp_path):
    both = run(tmp_path, models, asked, tensor_parallel_size=2)
    for path, answers in zip(models, both, strict=True):
        check(path, asked, answers)


def test_pipeline_parallel(models, asked, tmp_path):
    """On a CPU, vLLM's later stages get the memory for what they receive in compiled mode only."""
    [answers] = run(tmp_path, models[:1], asked, pipeline_parallel_size=2, enforce_eager=False)
    check(models[0], asked, answers)
