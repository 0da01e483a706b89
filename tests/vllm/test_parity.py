"""vLLM and Hugging Face give the same greedy tokens, however the requests reach the engine."""

from tests.greedy import assert_greedy
from tests.vllm_engines import counter, generate, start, tokens_of

TRAINED = [1.0] * 32


def test_batched(hf, prompts, answers):
    assert_greedy(hf, prompts, tokens_of(answers), TRAINED)


def test_one_by_one(engine, hf, prompts, answers):
    alone = [generate(engine, [prompt], [1.0])[0] for prompt in prompts]
    assert_greedy(hf, prompts, tokens_of(alone), TRAINED)


def test_again_from_the_prefix_cache(dual, hf, prompts, answers):
    engine = start(dual)  # the latest engine of a process is the one that counts
    first = generate(engine, prompts, TRAINED)
    again = generate(engine, prompts, TRAINED)
    hits = sum(answer.cached for answer in again)
    assert counter(engine, "prefix_cache_hits") == hits + sum(answer.cached for answer in first)
    assert hits >= 64 * len(prompts) // 2  # every other prompt starts with two cached blocks
    assert_greedy(hf, prompts, tokens_of(again), TRAINED)


def test_chunked_prefill(dual, hf, prompts):
    engine = start(dual, max_num_batched_tokens=32, max_num_seqs=8, enable_chunked_prefill=True)
    assert_greedy(hf, prompts, tokens_of(generate(engine, prompts, TRAINED)), TRAINED)


def test_preempted_requests_come_back_with_their_scale(dual, hf, prompts):
    scales = [(1.0, 0.0, 0.5)[i % 3] for i in range(len(prompts))]
    engine = start(dual, num_gpu_blocks_override=24)
    asked = generate(engine, prompts, scales)
    assert counter(engine, "num_preemptions") > 0
    assert_greedy(hf, prompts, tokens_of(asked), scales)


def test_compiled(dual, hf, prompts):
    scales = [(1.0, 0.0, 0.5)[i % 3] for i in range(len(prompts))]
    engine = start(dual, enforce_eager=False)
    assert_greedy(hf, prompts, tokens_of(generate(engine, prompts, scales)), scales)
    again = generate(engine, prompts, scales)
    assert sum(answer.cached for answer in again) > 0
    assert_greedy(hf, prompts, tokens_of(again), scales)
