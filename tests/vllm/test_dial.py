"""The dial without an engine: slots follow the batch, rows follow the requests."""

from types import SimpleNamespace

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, MoveDirectionality

from cllm_model.vllm.dial import TAP, TRUST, Dial, ScaleTap, dial_options
from cllm_model.vllm.request import with_scale

CPU = torch.device("cpu")
TRUSTED = {TRUST: True}
ONE_WAY, SWAP = MoveDirectionality.UNIDIRECTIONAL, MoveDirectionality.SWAP


class Config:
    """What the dial reads of an engine's configuration."""

    def __init__(self, additional_config=TRUSTED):
        self.additional_config = additional_config
        self.compilation_config = type("", (), {"static_forward_context": {}})()
        self.scheduler_config = type("", (), {"max_num_seqs": 4, "max_num_batched_tokens": 16})()
        self.device_config = type("", (), {"device": CPU})()


def tap_of(config):
    return ScaleTap(config, torch.device("cpu"), False)


def update(removed=(), added=(), moved=()):
    requests = [(i, SamplingParams(extra_args=args), None, []) for i, args in added]
    return BatchUpdate(4, list(removed), requests, list(moved))


def slots(config):
    return [round(scale, 4) for scale in Dial.of(config).slots.tolist()]


def test_slots_follow_the_batch():
    config = Config()
    tap = tap_of(config)
    tap.update_state(None)
    assert slots(config) == [1, 1, 1, 1]
    tap.update_state(update(added=[(i, with_scale(None, i / 10)) for i in range(4)]))
    assert slots(config) == [0, 0.1, 0.2, 0.3]
    tap.update_state(update(moved=[(0, 3, SWAP)]))
    assert slots(config) == [0.3, 0.1, 0.2, 0]
    tap.update_state(update(removed=[1], moved=[(3, 1, ONE_WAY)]))
    assert slots(config) == [0.3, 0, 0.2, 1]
    tap.update_state(update(removed=[2], added=[(2, with_scale(None, 1.5)), (3, None)]))
    assert slots(config) == [0.3, 0, 1.5, 1]


@pytest.mark.parametrize("plain", [{}, {"other": 1}, {TRUST: False}, {TRUST: "guessed"}, object()])
def test_a_scale_counts_only_where_scales_are_trusted(plain):
    requests = [None, {}, {"other": 1}, with_scale(None, 0.5)]
    for given, expected in (({TRUST: True, "other": 1}, [1, 1, 1, 0.5]), (plain, [1, 1, 1, 1])):
        config = Config(given)
        tap_of(config).update_state(update(added=list(enumerate(requests))))
        assert slots(config) == expected


def test_rows_follow_the_requests():
    dial = Dial(4, 16, CPU, trusted=True)
    dial.slots[:3] = torch.tensor([0.0, 0.5, 2.0])
    rows = dial.rows(torch.tensor([0, 3, 4, 6]), 8)
    assert rows.tolist() == [0, 0, 0, 0.5, 2, 2, 1, 1]  # the last two are padding
    assert dial.rows(None, 4).tolist() == [1, 1, 1, 1]
    assert dial.rows(None, 4).data_ptr() == rows.data_ptr() == dial.memory(2).data_ptr()


def test_rows_can_be_replayed():
    """As a CUDA graph of the V1 runner holds them: one recording, and other batches in the same memory."""
    dial, starts = Dial(4, 8, CPU, trusted=True), torch.tensor([0, 2, 3, 4, 4], dtype=torch.int32)
    recorded = make_fx(lambda: dial.rows(starts, 8))()
    starts.copy_(torch.tensor([0, 1, 4, 6, 7]))
    dial.slots.copy_(torch.tensor([0, 0.5, 1.5, 2]))
    recorded()
    assert dial.memory(8).tolist() == [0, 0.5, 0.5, 0.5, 1.5, 1.5, 2, 1]


def test_one_dial_per_engine():
    one, other = Config(), Config()
    tap_of(one).update_state(update(added=[(0, with_scale(None, 0.25))]))
    assert slots(one) == [0.25, 1, 1, 1] and slots(other) == [1, 1, 1, 1]
    assert Dial.of(one) is Dial.of(one) is not Dial.of(other)


def test_logits_are_left_alone():
    logits = torch.randn(2, 3)
    assert tap_of(Config()).apply(logits) is logits


def options(v2=False, processors=None, additional=None):
    model = SimpleNamespace(logits_processors=processors)
    config = SimpleNamespace(use_v2_model_runner=v2, additional_config=additional, model_config=model)
    return dial_options(config)


def test_only_the_v1_runner_gets_the_tap():
    """The V2 runner refuses such processors, and the model's state notes the scales: see test_model_state."""
    assert options(additional={})["logits_processors"] == [TAP]
    assert options(v2=True, additional={})["logits_processors"] == []


def test_options_that_were_given_stay():
    found = options(processors=["a:B"], additional={"other": 1})
    assert found == {"logits_processors": ["a:B", TAP], "additional_config": {"other": 1, TRUST: True}}
    with pytest.raises(ValueError, match="additional_config"):
        options(additional=object())
