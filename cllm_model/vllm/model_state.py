"""The dial under vLLM's V2 model runner, which asks the model for a state of its own.

A request keeps its slot until it is finished or preempted, after which it comes back through `add_request`; the runner
says which slot each request of a batch has. The scales of a batch are written into the same memory every time and
outside the model's forward pass: CUDA graphs replay the pass and read what stands there.
Imports modules of vLLM that only its V2 runner needs, so it is imported when the runner asks.
"""

from typing import Any

import torch
from torch import nn
from vllm.config import VllmConfig
from vllm.v1.core.sched.output import NewRequestData
from vllm.v1.worker.gpu.input_batch import InputBatch
from vllm.v1.worker.gpu.mm.encoder_cache import EncoderCache
from vllm.v1.worker.gpu.model_states.default import DefaultModelState
from vllm.v1.worker.gpu.states import RequestState

from cllm_model.vllm.dial import Dial


class ControlModelState(DefaultModelState):
    """vLLM's default state, and the control scale of every request."""

    def __init__(
        self, vllm_config: VllmConfig, model: nn.Module, encoder_cache: EncoderCache | None, device: torch.device
    ) -> None:
        super().__init__(vllm_config, model, encoder_cache, device)
        self._dial = Dial.of(vllm_config)

    def add_request(self, req_index: int, new_req_data: NewRequestData) -> None:
        """Note the scale of a request that enters, or comes back, in a slot."""
        super().add_request(req_index, new_req_data)
        params = new_req_data.sampling_params
        self._dial.enter(req_index, params.extra_args if params is not None else None)

    def prepare_inputs(self, input_batch: InputBatch, req_states: RequestState) -> dict[str, Any]:
        """Return the model's inputs for a batch, with the scale of each of its rows."""
        rows = self._dial.rows(
            input_batch.query_start_loc[: input_batch.num_reqs + 1],
            input_batch.num_tokens_after_padding,
            input_batch.idx_mapping[: input_batch.num_reqs],
        )
        return {**super().prepare_inputs(input_batch, req_states), "scale": rows}

    def prepare_dummy_inputs(self, num_reqs: int, num_tokens: int) -> dict[str, Any]:
        """Return the inputs that CUDA graphs are captured with: the memory that `prepare_inputs` will write."""
        return {**super().prepare_dummy_inputs(num_reqs, num_tokens), "scale": self._dial.memory(num_tokens)}
