"""The dial inside an engine: which control scale each row of the batch has.

`Dial` holds the scale of every request slot and spreads it over the tokens of a forward pass. Who keeps the slots up to
date depends on vLLM's model runner: under V1 it is `ScaleTap`, under V2 `cllm_model.vllm.model_state`. The tap is a
logits processor that changes no logits: the V1 runner tells logits processors which requests entered, left or moved in
its batch, and does so before the forward pass of the step. Both find the model's dial in the engine's configuration, so
engines that live in one process never share one.
That configuration also says whether scales are trusted, and reaches every worker that an engine starts; another machine
of the same engine has a command line of its own, which must be ours too. An engine of plain vLLM's runs all requests as
trained: its clients could send a scale without the cache salt that belongs to it.
Knows no layers and no model. Nothing here raises while an engine runs: that would end the engine.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from vllm.config import VllmConfig
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor, MoveDirectionality

from cllm_model.scale import TRAINED_SCALE
from cllm_model.vllm.request import asked_scale

TAP = "cllm_model.vllm.dial:ScaleTap"
"""The tap's name for vLLM's option `logits_processors`."""

TRUST = "control_scales_trusted"
"""True under this name in vLLM's option `additional_config`: each request has a scale, and the salt for it, of ours."""

_KEY = "control_llm.dial"


def dial_options(config: VllmConfig) -> dict[str, Any]:
    """Return vLLM's options that give an engine of this configuration a dial, with what the options hold already.

    For whoever writes a scale (`request.with_scale`) and a salt (`request.salted`) into every request of the engine.

    Raises:
        ValueError: `additional_config` is not a dict, so that there is no place for ours.
    """
    given = config.additional_config
    if not isinstance(given, dict):
        raise ValueError(f"additional_config: {given!r} is not supported; allowed: a dict")
    taps = [] if config.use_v2_model_runner else [TAP]  # the V2 runner refuses logits processors of this kind
    return {
        "logits_processors": [*(config.model_config.logits_processors or ()), *taps],
        "additional_config": {**given, TRUST: True},
    }


class Dial:
    """Control scales of one engine: by request slot, and spread over the rows of a forward pass.

    Args:
        max_requests: Most requests in a batch.
        max_tokens: Most tokens in a batch.
        device: Where the model runs.
        trusted: Apply the scales that requests carry; without, all run as trained.
    """

    def __init__(self, max_requests: int, max_tokens: int, device: torch.device | str, trusted: bool) -> None:
        self._trusted = trusted
        # One slot more than there are requests: that of padding rows.
        self._slots = torch.full((max_requests + 1,), TRAINED_SCALE, device=device)
        self._rows = torch.full((max_tokens,), TRAINED_SCALE, device=device)
        self._numbers = torch.arange(max_tokens, dtype=torch.int32, device=device)

    @property
    def slots(self) -> Tensor:
        """The scale of each request slot, (max_requests,); write into it."""
        return self._slots[:-1]

    @classmethod
    def of(cls, vllm_config: VllmConfig) -> "Dial":
        """Return the dial of the engine that this configuration belongs to, made on first use."""
        shared = vllm_config.compilation_config.static_forward_context
        if _KEY not in shared:
            limits = vllm_config.scheduler_config
            device = vllm_config.device_config.device
            assert isinstance(device, torch.device)
            given = vllm_config.additional_config
            trusted = isinstance(given, dict) and given.get(TRUST) is True
            shared[_KEY] = cls(limits.max_num_seqs, limits.max_num_batched_tokens, device, trusted)
        return shared[_KEY]

    def enter(self, slot: int, extra_args: Mapping[str, Any] | None) -> None:
        """Note the scale of a request that enters a slot, or comes back into one."""
        scale = asked_scale(extra_args) if self._trusted else None
        self.slots[slot] = TRAINED_SCALE if scale is None else scale

    def rows(self, query_start_loc: Tensor | None, num_tokens: int, slot_of: Tensor | None = None) -> Tensor:
        """Return the scale of each row of a forward pass, (num_tokens,), always in the same memory.

        Shapes depend on the arguments' shapes alone and nothing waits for the device: CUDA graphs can replay it.

        Args:
            query_start_loc: First row of each request, and the row after the last one, (requests + 1,) int32;
                None in a dummy run, which has no requests.
            num_tokens: Rows in the pass; rows after the last request are padding.
            slot_of: Slot of each request, (requests,); request i has slot i by default.
        """
        rows = self._rows[:num_tokens]
        if query_start_loc is None:
            return rows.fill_(TRAINED_SCALE)
        ends = query_start_loc[1:]
        request = torch.searchsorted(ends, self._numbers[:num_tokens], right=True)  # len(ends) for padding
        scales = self.slots[: len(ends)] if slot_of is None else self.slots[slot_of]
        torch.index_select(torch.cat([scales, self._slots[-1:]]), 0, request, out=rows)
        return rows

    def memory(self, num_tokens: int) -> Tensor:
        """Return the memory that `rows` writes, (num_tokens,), with what stands there."""
        return self._rows[:num_tokens]


class ScaleTap(LogitsProcessor):
    """Copies each request's scale into the slot that the request has in the batch; leaves the logits alone."""

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        self._dial = Dial.of(vllm_config)

    def is_argmax_invariant(self) -> bool:
        """Return True: the logits are not touched."""
        return True

    def apply(self, logits: Tensor) -> Tensor:
        """Return the logits as they are."""
        return logits

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow the batch: requests that left, entered (again, after preemption) and moved, in this order."""
        if batch_update is None:
            return
        slots = self._dial.slots
        for index in batch_update.removed:
            slots[index] = TRAINED_SCALE
        for index, params, _, _ in batch_update.added:
            self._dial.enter(index, params.extra_args)
        for source, target, direction in batch_update.moved:
            if direction is MoveDirectionality.SWAP:
                slots[[source, target]] = slots[[target, source]]
            else:
                slots[target] = slots[source]
                slots[source] = TRAINED_SCALE
