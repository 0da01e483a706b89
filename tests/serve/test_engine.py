"""What the server hands to vLLM's engine, whatever route a request came by."""

from contextvars import copy_context
from types import SimpleNamespace
from typing import Any

import pytest
from vllm import SamplingParams
from vllm.exceptions import VLLMValidationError
from vllm.inputs.engine import tokens_input

from cllm_model.vllm.request import cache_salt
from serve.app.engine import ControlEngine
from serve.app.strength import Strength, ask_for
from serve.preflight import Checkpoint
from serve.settings import Settings


class Recorder:
    """Stands for vLLM's engine client, and keeps what it was given."""

    def __init__(self) -> None:
        self.given: list[Any] = []

    def generate(self, *given: Any) -> None:
        self.given.append(given)


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def engine(recorder, tmp_path):
    return ControlEngine(recorder, Settings(tmp_path), Checkpoint("0" * 12, None))


def ask(engine, scale, *given):
    """Start a generation in a request that asked for a scale."""

    def request():
        ask_for(Strength("mine", scale))
        engine.generate(*given)

    copy_context().run(request)


def test_scale_and_salt_are_the_servers_whatever_a_client_sent(engine, recorder):
    sent = SamplingParams(extra_args={"control_scale": 2.0, "other": 1})
    ask(engine, 0.25, tokens_input([5], cache_salt="cllm-20000-forged"), sent, "name")
    [(prompt, params, name)] = recorder.given
    assert params.extra_args == {"control_scale": 0.25, "other": 1} and sent.extra_args["control_scale"] == 2.0
    assert prompt["cache_salt"] == cache_salt(0.25, "cllm-20000-forged")
    assert (prompt["prompt_token_ids"], name) == ([5], "name")


@pytest.mark.parametrize("prompt", [{"prompt_token_ids": [5]}, "text", SimpleNamespace()])
def test_prompts_that_vllm_did_not_render_are_closed(engine, prompt):
    with pytest.raises(VLLMValidationError, match="closed"):
        ask(engine, 0.25, prompt, SamplingParams(), "name")


def test_a_route_that_says_nothing_is_closed(engine):
    with pytest.raises(VLLMValidationError, match="closed"):
        copy_context().run(engine.generate, tokens_input([5]), SamplingParams(), "name")


def test_other_ways_into_the_engine_are_closed(engine):
    for way in (engine.encode, engine.add_request):
        with pytest.raises(VLLMValidationError):
            way("name", "text", SamplingParams())
