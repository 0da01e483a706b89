"""Control scales mixed in one batch: each request gets its own, and never another's KV blocks."""

import pytest

from tests.greedy import assert_greedy
from tests.vllm_engines import generate, start, tokens_of

SCALES = [1.0, 0.0, 0.5, 1.7]


@pytest.fixture(scope="module")
def asked(prompts):
    """Each of eight prompts at each of four scales, so that neighbours share prefixes and differ in scale."""
    return [(prompt, scale) for prompt in prompts[:8] for scale in SCALES]


def test_mixed_batch(engine, hf, asked):
    some_prompts, scales = zip(*asked, strict=True)
    engine.reset_prefix_cache()
    for _ in range(2):  # the second time from the prefix cache
        assert_greedy(hf, some_prompts, tokens_of(generate(engine, some_prompts, scales)), scales)


def test_mixed_batch_equals_one_at_a_time(engine, hf, asked):
    some_prompts, scales = zip(*asked, strict=True)
    alone = [generate(engine, [prompt], [scale])[0] for prompt, scale in asked]
    assert_greedy(hf, some_prompts, tokens_of(alone), scales)
    assert len({tuple(answer.tokens) for answer in alone[:4]}) == 4  # the dial matters


def test_without_the_salt_answers_are_wrong(engine, hf, prompts):
    prompt = prompts[1]
    engine.reset_prefix_cache()
    generate(engine, [prompt], [1.0], salted=False)
    reused = generate(engine, [prompt], [0.0], salted=False)
    assert reused[0].cached > 0
    with pytest.raises(AssertionError):
        assert_greedy(hf, [prompt], tokens_of(reused), [0.0])
    assert_greedy(hf, [prompt], tokens_of(generate(engine, [prompt], [0.0])), [0.0])


def test_a_request_without_a_marked_scale_is_the_trained_model(engine, hf, prompts):
    assert_greedy(hf, prompts[:4], tokens_of(generate(engine, prompts[:4])), [1.0] * 4)


def test_engines_in_one_process_have_dials_of_their_own(engine, dual, hf, prompts):
    other = start(dual)
    engine.reset_prefix_cache()
    mine, its = [1.0, 0.0], [0.0, 1.0]
    assert_greedy(hf, prompts[:2], tokens_of(generate(engine, prompts[:2], mine)), mine)
    assert_greedy(hf, prompts[:2], tokens_of(generate(other, prompts[:2], its)), its)
    assert_greedy(hf, prompts[:2], tokens_of(generate(engine, prompts[:2], mine)), mine)
