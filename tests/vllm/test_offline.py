"""The offline API: a control scale for each prompt, the salt included, whatever method of `LLM` starts a request."""

import pytest
from vllm import SamplingParams

from cllm_model.vllm.request import with_scale
from serve import ControlLLM
from tests import vllm_engines
from tests.greedy import assert_greedy
from tests.vllm_engines import generate, tokens_of

SCALES = [1.0, 0.0, 0.5, 1.7]
GREEDY = SamplingParams(temperature=0.0, max_tokens=24, ignore_eos=True)


@pytest.fixture(scope="module")
def llm(dual):
    engine = ControlLLM(dual, default_scale=0.5, **vllm_engines.OPTIONS)
    vllm_engines.keep(engine)
    return engine


def prompt(tokens):
    return {"prompt_token_ids": tokens}


def tokens(outputs):
    return [list(output.outputs[0].token_ids) for output in outputs]


def test_each_prompt_has_its_scale(llm, hf, prompts):
    asked = prompts[:8]
    scales = SCALES * 2
    answers = llm.generate([prompt(one) for one in asked], GREEDY, control_scale=scales, use_tqdm=False)
    assert_greedy(hf, asked, tokens(answers), scales)


def test_one_prompt_at_every_scale_after_another_shares_no_kv(llm, engine, prompts):
    """The same long prompt again and again: without the salt, all but the first would read the first one's blocks."""
    one = prompts[1] * 2
    alone = tokens_of(generate(engine, [one] * 4, SCALES, tokens=24))
    found = [tokens(llm.generate(prompt(one), GREEDY, control_scale=s, use_tqdm=False))[0] for s in SCALES]
    assert found == alone
    assert len({tuple(answer) for answer in found}) > 1


def test_no_scale_is_the_default_one(llm, hf, prompts):
    asked = prompts[:4]
    for answers in (
        llm.generate([prompt(one) for one in asked], [GREEDY] * 4, use_tqdm=False),
        llm.generate([prompt(one) for one in asked], GREEDY, control_scale=0.5, use_tqdm=False),
    ):
        assert_greedy(hf, asked, tokens(answers), [0.5] * 4)
    llm.enqueue([prompt(one) for one in asked], GREEDY, use_tqdm=False)
    assert_greedy(hf, asked, tokens(llm.wait_for_completion(use_tqdm=False)), [0.5] * 4)


def test_chat(llm, hf):
    chats = [[{"role": "user", "content": text}] for text in ("abc", "hello there")]
    answers = llm.chat(chats, GREEDY, control_scale=[0.0, 1.7], use_tqdm=False)
    asked = [list(answer.prompt_token_ids) for answer in answers]
    assert_greedy(hf, asked, tokens(answers), [0.0, 1.7])
    (single,) = llm.chat(chats[0], GREEDY, control_scale=0.0, use_tqdm=False)
    assert tokens([single]) == tokens(answers[:1])


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        (3, "control_scale: 3 is out of range"),
        (float("nan"), "control_scale: nan is not a finite number"),
        (True, "control_scale: True is not a finite number"),
        ("0.5", "control_scale: '0.5' is not a finite number"),
        (1e-9, "control_scale: 1e-09 would be rounded to 0"),
        ([0.5], "control_scale: 1 values for 2 prompts"),
    ],
)
def test_bad_scales(llm, scale, message):
    with pytest.raises(ValueError, match=message):
        llm.generate([prompt([5, 6]), prompt([7])], GREEDY, control_scale=scale, use_tqdm=False)


def test_reserved_extra_args(llm):
    params = SamplingParams(extra_args=with_scale(None, 0.0))
    with pytest.raises(ValueError, match="'control_scale' is reserved; use the argument control_scale"):
        llm.generate(prompt([5]), params, use_tqdm=False)


def test_a_scale_given_by_hand_stays_out_of_the_callers_params(llm, prompts):
    params = GREEDY.clone()
    llm.generate(prompt(prompts[0]), params, control_scale=0.0, use_tqdm=False)
    assert not params.extra_args
