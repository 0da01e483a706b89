"""The dial's state under vLLM's V2 model runner, driven as the runner drives it, case by case.

`test_mixed_batch` has the runner itself drive it. Here are the cases that its batches may not hold: slots in any order,
requests and rows padded to a graph's size, slots used again, graphs captured at several sizes.
"""

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from vllm import SamplingParams
from vllm.v1.worker.gpu.input_batch import InputBatch, InputBuffers

from cllm_model.vllm.dial import TRUST
from cllm_model.vllm.model_state import ControlModelState
from cllm_model.vllm.request import with_scale

MAX_REQUESTS, MAX_TOKENS = 8, 32
CPU = torch.device("cpu")


def make_state(trusted: bool) -> ControlModelState:
    config: Any = SimpleNamespace(
        model_config=SimpleNamespace(
            enable_prompt_embeds=False, uses_mrope=False, uses_xdrope_dim=0, dtype=torch.bfloat16, max_model_len=64,
            get_inputs_embeds_size=lambda: 16, is_multimodal_pruning_enabled=lambda: False, multimodal_config=None,
        ),
        scheduler_config=SimpleNamespace(max_num_seqs=MAX_REQUESTS, max_num_batched_tokens=MAX_TOKENS),
        compilation_config=SimpleNamespace(static_forward_context={}),
        device_config=SimpleNamespace(device=CPU),
        additional_config={TRUST: trusted},
    )  # fmt: skip
    return ControlModelState(config, torch.nn.Module(), None, CPU)


@pytest.fixture
def state() -> ControlModelState:
    return make_state(trusted=True)


def request(scale: float | None, args: dict[str, Any] | None = None) -> Any:
    extra = args if scale is None else with_scale(None, scale)
    return SimpleNamespace(sampling_params=SamplingParams(extra_args=extra))


def batch(slots: list[int], lengths: list[int], padded: int | None = None, requests: int | None = None) -> InputBatch:
    """A batch as the runner builds it: requests in an order of its own, padded to as many rows and requests."""
    total, starts = sum(lengths), InputBuffers(MAX_REQUESTS, MAX_TOKENS, CPU).query_start_loc
    starts[1 : len(lengths) + 1] = torch.tensor(lengths).cumsum(0)
    starts[len(lengths) + 1 :] = total  # padding requests have no rows
    return dataclasses.replace(
        InputBatch.make_dummy(len(slots), total, InputBuffers(MAX_REQUESTS, MAX_TOKENS, CPU)),
        num_reqs_after_padding=requests or len(slots),
        query_start_loc=starts[: (requests or len(slots)) + 1],
        num_tokens_after_padding=padded or total,
        idx_mapping=torch.tensor(slots),
    )


def rows(state: ControlModelState, *args: Any) -> list[float]:
    scale = state.prepare_inputs(batch(*args), None)["scale"]  # type: ignore[arg-type]
    assert scale.dtype == torch.float32 and scale.device == CPU  # whatever the model's type is
    return [round(value, 4) for value in scale.tolist()]


def test_rows_follow_the_slots_in_the_order_of_the_batch(state):
    for slot, scale in enumerate([0.0, 0.25, 0.5, 1.5]):
        state.add_request(slot, request(scale))
    assert rows(state, [3, 0, 2], [2, 1, 3]) == [1.5, 1.5, 0, 0.5, 0.5, 0.5]
    assert rows(state, [2, 0, 3], [2, 1, 3]) == [0.5, 0.5, 0, 1.5, 1.5, 1.5]
    assert rows(state, [1], [4]) == [0.25] * 4


def test_a_full_batch(state):
    scales = [i / 4 for i in range(MAX_REQUESTS)]
    for slot, scale in enumerate(scales):
        state.add_request(slot, request(scale))
    slots = [5, 2, 7, 0, 3, 6, 1, 4]
    each = MAX_TOKENS // MAX_REQUESTS
    expected = [scales[slot] for slot in slots for _ in range(each)]
    assert rows(state, slots, [each] * MAX_REQUESTS) == expected


@pytest.mark.parametrize("requests", [2, 4, MAX_REQUESTS])
def test_padding_is_as_trained(state, requests):
    """Rows of no request, and of the requests that a graph for more of them was captured with."""
    for slot in range(MAX_REQUESTS):
        state.add_request(slot, request(0.0))
    assert rows(state, [6, 1], [3, 1], 8, requests) == [0, 0, 0, 0, 1, 1, 1, 1]


def test_a_slot_used_again_has_the_new_scale(state):
    state.add_request(5, request(0.25))
    assert rows(state, [5], [2]) == [0.25, 0.25]
    state.remove_request("gone")
    state.add_request(5, request(None))
    assert rows(state, [5], [2]) == [1, 1]


def test_a_preempted_request_comes_back_in_another_slot(state):
    state.add_request(0, request(0.25))
    state.remove_request("preempted")
    state.add_request(0, request(1.5))
    state.add_request(3, request(0.25))
    assert rows(state, [3, 0], [2, 1]) == [0.25, 0.25, 1.5]


def test_a_scale_counts_only_where_scales_are_trusted(state):
    plain = make_state(trusted=False)
    for each in (plain, state):
        each.add_request(0, request(0.25))
        each.add_request(1, SimpleNamespace(sampling_params=None))
    assert rows(plain, [0, 1], [1, 1]) == [1, 1]
    assert rows(state, [0, 1], [1, 1]) == [0.25, 1]


class Graph:
    """Captured once for a size; every replay reads the memory that it was captured with, and nothing else."""

    def __init__(self, state: ControlModelState, size: int) -> None:
        self._captured = state.prepare_dummy_inputs(min(size, MAX_REQUESTS), size)["scale"]
        assert self._captured.shape == (size,)

    def replay(self) -> list[float]:
        return [round(value, 4) for value in self._captured.tolist()]


def test_replayed_graphs_read_the_scales_of_their_batch(state):
    graphs = {size: Graph(state, size) for size in (16, 8, 4)}
    for slot, scale in enumerate([0.0, 0.25, 0.5, 1.5]):
        state.add_request(slot, request(scale))
    rows(state, [3, 1], [1, 1], 4)
    assert graphs[4].replay() == [1.5, 0.25, 1, 1]
    rows(state, [0, 2], [9, 3], 16)
    assert graphs[16].replay() == [0] * 9 + [0.5] * 3 + [1] * 4
    state.add_request(3, request(0.75))
    rows(state, [2, 3, 1, 0], [1] * 4, 8)
    assert graphs[8].replay() == [0.5, 0.75, 0.25, 0, 1, 1, 1, 1]
    rows(state, [1, 3], [1, 1], 4)
    assert graphs[4].replay() == [0.25, 0.75, 1, 1]


def test_graphs_in_pieces_are_called_with_the_memory_they_were_captured_with(state):
    captured = state.prepare_dummy_inputs(1, MAX_TOKENS)["scale"].data_ptr()
    state.add_request(2, request(0.5))
    for size in (1, 8, MAX_TOKENS):
        assert state.prepare_inputs(batch([2], [1], size), None)["scale"].data_ptr() == captured
