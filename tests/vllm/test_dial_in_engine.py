"""The dial in running engines: what a request without a scale gets, and that engines share nothing."""

from tests.greedy import assert_greedy
from tests.vllm_engines import generate, start, tokens_of


def test_a_request_without_a_scale_is_the_trained_model(engine, hf, prompts):
    assert_greedy(hf, prompts[:4], tokens_of(generate(engine, prompts[:4])), [1.0] * 4)


def test_an_engine_of_plain_vllm_takes_no_scale_from_a_client(dual, hf, prompts):
    """The tap is there, as the V2 runner's state always is; but nothing says that the scales are ours."""
    plain = start(dual, additional_config={})
    assert_greedy(hf, prompts[:4], tokens_of(generate(plain, prompts[:4], [0.0] * 4)), [1.0] * 4)


def test_engines_in_one_process_have_dials_of_their_own(engine, dual, hf, prompts):
    other = start(dual)
    engine.reset_prefix_cache()
    mine, its = [1.0, 0.0], [0.0, 1.0]
    assert_greedy(hf, prompts[:2], tokens_of(generate(engine, prompts[:2], mine)), mine)
    assert_greedy(hf, prompts[:2], tokens_of(generate(other, prompts[:2], its)), its)
    assert_greedy(hf, prompts[:2], tokens_of(generate(engine, prompts[:2], mine)), mine)
