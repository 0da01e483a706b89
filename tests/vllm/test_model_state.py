"""The dial under vLLM's V2 model runner, which needs a GPU to run: its state alone, driven as the runner drives it."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from vllm import SamplingParams

from cllm_model.vllm.model_state import ControlModelState
from cllm_model.vllm.request import mark

MAX_REQUESTS, MAX_TOKENS = 8, 32


@pytest.fixture
def state(monkeypatch):
    config: Any = SimpleNamespace(
        model_config=SimpleNamespace(
            enable_prompt_embeds=False, uses_mrope=False, uses_xdrope_dim=0, dtype=torch.float32, max_model_len=64,
            get_inputs_embeds_size=lambda: 16, is_multimodal_pruning_enabled=lambda: False, multimodal_config=None,
        ),
        scheduler_config=SimpleNamespace(max_num_seqs=MAX_REQUESTS, max_num_batched_tokens=MAX_TOKENS),
    )  # fmt: skip
    return ControlModelState(config, torch.nn.Module(), None, torch.device("cpu"))


def request(scale: float | None, args: dict[str, Any] | None = None) -> Any:
    extra = args if scale is None else mark(None, scale)
    return SimpleNamespace(sampling_params=SamplingParams(extra_args=extra))


def batch(slots: list[int], lengths: list[int], padded: int) -> Any:
    """A batch as the runner builds it: requests in an order of its own, rows padded to a graph's size."""
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    # the runner's buffer is longer than the batch; what lies behind it says where the padded batch ends
    buffer = torch.full((MAX_REQUESTS + 1,), padded, dtype=torch.int32)
    buffer[: len(starts)] = torch.from_numpy(starts)
    return SimpleNamespace(
        num_reqs=len(slots),
        query_start_loc=buffer[: len(starts)],
        num_tokens_after_padding=padded,
        idx_mapping=torch.tensor(slots),
    )


def rows(state: ControlModelState, *args: Any) -> list[float]:
    scale = state.prepare_inputs(batch(*args), None)["scale"]  # type: ignore[arg-type]
    return [round(value, 4) for value in scale.tolist()]


def test_rows_follow_the_slots_in_the_order_of_the_batch(state):
    for slot, scale in enumerate([0.0, 0.25, 0.5, 1.5]):
        state.add_request(slot, request(scale))
    assert rows(state, [3, 0, 2], [2, 1, 3], 6) == [1.5, 1.5, 0, 0.5, 0.5, 0.5]
    assert rows(state, [1], [4], 4) == [0.25] * 4


def test_padding_rows_are_as_trained(state):
    state.add_request(0, request(0.0))
    assert rows(state, [0], [3], 8) == [0, 0, 0, 1, 1, 1, 1, 1]


def test_a_slot_used_again_has_the_new_scale(state):
    state.add_request(5, request(0.25))
    assert rows(state, [5], [2], 2) == [0.25, 0.25]
    state.remove_request("gone")
    state.add_request(5, request(None))
    assert rows(state, [5], [2], 2) == [1, 1]
    state.add_request(5, request(0.25))  # preempted and back
    assert rows(state, [5], [1], 1) == [0.25]


def test_a_scale_counts_only_with_our_mark(state):
    state.add_request(0, request(None, {"control_scale": 0.0}))
    state.add_request(1, SimpleNamespace(sampling_params=None))
    assert rows(state, [0, 1], [1, 1], 2) == [1, 1]


def test_a_replayed_graph_reads_the_scales_of_its_own_batch(state):
    """A CUDA graph is captured with the dummy inputs' memory and reads it again at every replay, whatever its size."""
    captured = state.prepare_dummy_inputs(1, 8)["scale"]
    state.add_request(0, request(0.5))
    for padded in (8, 16, 4):
        rows(state, [0], [3], padded)
        assert state.prepare_dummy_inputs(1, padded)["scale"].data_ptr() == captured.data_ptr()
        assert captured[:3].tolist() == [0.5] * 3
        assert captured[3:padded].tolist() == [1.0] * (min(padded, 8) - 3)
