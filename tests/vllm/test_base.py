"""Scale 0 is the base model: bit for bit in a batch of the same shape, and the same greedy tokens anywhere."""

import pytest

from tests import tiny_models
from tests.greedy import assert_greedy, load_hf
from tests.vllm_engines import generate, start, tokens_of

PLAIN = {"logits_processors": None}


@pytest.fixture(scope="module")
def engine(case):
    return start(case.path)


@pytest.fixture(scope="module")
def plain(case, tmp_path_factory):
    """The extracted base in plain vLLM."""
    path = tiny_models.write_extracted(case.path, tmp_path_factory.mktemp("plain") / "extracted")
    return start(path, **PLAIN), load_hf(path), path


@pytest.fixture(scope="module")
def asked(case):
    return case.prompts


def test_scale_0_is_bit_equal_to_the_extracted_base(engine, plain, asked):
    engine.reset_prefix_cache()
    plain[0].reset_prefix_cache()
    expected = generate(plain[0], asked, logprobs=5)
    found = generate(engine, asked, [0.0] * len(asked), logprobs=5)
    for ours, its in zip(found, expected, strict=True):
        assert ours.tokens == its.tokens
        assert ours.logprobs == its.logprobs
        assert ours.prompt_logprobs == its.prompt_logprobs
        assert len(its.logprobs) == 64 and its.prompt_logprobs


def test_scale_0_is_bit_equal_beside_other_scales(engine, plain, asked):
    engine.reset_prefix_cache()
    plain[0].reset_prefix_cache()
    scales = [float(i % 2) for i in range(len(asked))]
    expected = generate(plain[0], asked, logprobs=5)
    found = generate(engine, asked, scales, logprobs=5)
    for ours, its in list(zip(found, expected, strict=True))[::2]:
        assert ours.tokens == its.tokens
        assert ours.logprobs == its.logprobs


def test_scale_0_is_bit_equal_in_bfloat16(case, plain, asked):
    both = [start(path, dtype="bfloat16", **options) for path, options in ((case.path, {}), (plain[2], PLAIN))]
    found = generate(both[0], asked, [0.0, 1.0] * (len(asked) // 2), logprobs=5)
    expected = generate(both[1], asked, logprobs=5)
    for ours, its in list(zip(found, expected, strict=True))[::2]:
        assert ours == its


def test_scale_0_gives_the_base_models_tokens_alone_too(engine, plain, asked):
    alone = [generate(engine, [prompt], [0.0])[0] for prompt in asked]
    assert_greedy(plain[1], asked, tokens_of(alone), [0.0] * len(asked))


def test_a_fresh_expansion_equals_its_base(base, prompts):
    fresh = start(tiny_models.write_dual(base, base.parent / "fresh", trained=False))
    scales = [(0.0, 0.5, 1.0, 2.0)[i % 4] for i in range(len(prompts))]
    assert_greedy(load_hf(base), prompts, tokens_of(generate(fresh, prompts, scales)), scales)
