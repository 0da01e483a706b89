"""The dial in running engines: what a request without a scale gets, and that engines share nothing."""

from tests.greedy import assert_greedy
from tests.vllm_engines import generate, start, tokens_of


def test_a_request_without_a_marked_scale_is_the_trained_model(engine, hf, prompts):
    assert_greedy(hf, prompts[:4], tokens_of(generate(engine, prompts[:4])), [1.0] * 4)


def test_engines_in_one_process_have_dials_of_their_own(engine, dual, hf, prompts):
    other = start(dual)
    engine.reset_prefix_cache()
    mine, its = [1.0, 0.0], [0.0, 1.0]
    assert_greedy(hf, prompts[:2], tokens_of(generate(engine, prompts[:2], mine)), mine)
    assert_greedy(hf, prompts[:2], tokens_of(generate(other, prompts[:2], its)), its)
    assert_greedy(hf, prompts[:2], tokens_of(generate(engine, prompts[:2], mine)), mine)
