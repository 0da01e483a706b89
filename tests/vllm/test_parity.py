"""vLLM and Hugging Face give the same 64 greedy tokens for 32 prompts, however the requests reach the engine."""

import pytest

from tests.greedy import assert_greedy
from tests.vllm_engines import BLOCK, counter, generate, start, tokens_of

TRAINED = [1.0] * 32
MIXED = [(1.0, 0.0, 0.5)[i % 3] for i in range(32)]


@pytest.fixture(scope="module")
def engine(case):
    return start(case.path)


def test_batched_and_again_from_the_prefix_cache(engine, case):
    first = generate(engine, case.prompts, TRAINED)
    assert_greedy(case.hf, case.prompts, tokens_of(first), TRAINED)
    before = counter(engine, "prefix_cache_hits")
    again = generate(engine, case.prompts, TRAINED)
    hits = sum((len(prompt) - 1) // BLOCK * BLOCK for prompt in case.prompts)  # every whole block
    assert counter(engine, "prefix_cache_hits") - before == hits > 0
    assert_greedy(case.hf, case.prompts, tokens_of(again), TRAINED)


def test_one_by_one(engine, case):
    alone = [generate(engine, [prompt], [1.0])[0] for prompt in case.prompts]
    assert_greedy(case.hf, case.prompts, tokens_of(alone), TRAINED)


def test_mixed_scales(engine, case):
    assert_greedy(case.hf, case.prompts, tokens_of(generate(engine, case.prompts, MIXED)), MIXED)


def test_chunked_prefill(case):
    engine = start(case.path, max_num_batched_tokens=32, max_num_seqs=8, enable_chunked_prefill=True)
    assert_greedy(case.hf, case.prompts, tokens_of(generate(engine, case.prompts, TRAINED)), TRAINED)


def test_preempted_requests_come_back_with_their_scale(case):
    engine = start(case.path, num_gpu_blocks_override=24)
    answers = generate(engine, case.prompts, MIXED)
    assert counter(engine, "num_preemptions") > 0
    assert_greedy(case.hf, case.prompts, tokens_of(answers), MIXED)


def test_compiled(case):
    engine = start(case.path, enforce_eager=False)
    assert_greedy(case.hf, case.prompts, tokens_of(generate(engine, case.prompts, MIXED)), MIXED)
    again = generate(engine, case.prompts, MIXED)
    assert sum(answer.cached for answer in again) > 0
    assert_greedy(case.hf, case.prompts, tokens_of(again), MIXED)
