"""The two stages of a pipeline, driven by hand beside a running engine, give the whole model's logits bit for bit."""

import copy
import dataclasses
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from vllm.config import set_current_vllm_config
from vllm.distributed import parallel_state
from vllm.forward_context import get_forward_context, override_forward_context
from vllm.model_executor.model_loader import get_model

from tests import tiny_models
from tests.vllm_engines import generate, start

SCALES = [1.0, 0.0, 0.5, 1.7] * 2


class Stage:
    """One of two stages of an engine's model, with weights, KV caches and a dial of its own."""

    def __init__(self, runner, rank):
        self.group = SimpleNamespace(rank_in_group=rank, world_size=2, is_first_rank=rank == 0, is_last_rank=rank == 1)
        config = copy.copy(runner.vllm_config)
        config.compilation_config = copy.copy(config.compilation_config)
        config.compilation_config.static_forward_context = self.context = {}
        with self.alone(), set_current_vllm_config(config):
            self.model = get_model(vllm_config=config)
        whole = runner.compilation_config.static_forward_context
        for name, layer in self.context.items():
            if hasattr(layer, "kv_cache"):
                layer.bind_kv_cache(torch.zeros_like(whole[name].kv_cache))
                layer.isa = whole[name].isa  # set by the CPU's attention backend when an engine starts

    @contextmanager
    def alone(self):
        """Be the stage that vLLM takes this process for."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(parallel_state, "_PP", self.group)
            yield

    def __call__(self, input_ids, positions, received, slots):
        self.model.dial.slots.copy_(slots)
        context = dataclasses.replace(get_forward_context(), no_compile_layers=self.context)
        with self.alone(), override_forward_context(context):
            return self.model(input_ids, positions, received)


@pytest.mark.parametrize("family, method", [("llama", "dlerp"), ("qwen2", "slerp")])
def test_two_stages_are_the_whole(family, method, tmp_path):
    base = tiny_models.write_base(tmp_path / "base", family=family)
    path = tiny_models.write_dual(base, tmp_path / "dual", method, layers=4, kind="hybrid")
    engine = start(path, kv_cache_memory_bytes=2**24, max_num_seqs=8)
    runner = engine.llm_engine.model_executor.driver_worker.worker.model_runner
    first, last = Stage(runner, 0), Stage(runner, 1)
    # plain, stacked, dual-branch in either stage
    assert (first.model.model.start_layer, first.model.model.end_layer) == (0, 3)
    assert (last.model.model.start_layer, last.model.model.end_layer) == (3, 6)
    compared = []

    def drive(whole, _, inputs, output):
        ids, positions = inputs["input_ids"], inputs["positions"]
        handed_on = first(ids, positions, None, whole.dial.slots)
        hidden_states = last(None, positions, handed_on, whole.dial.slots)
        assert torch.equal(last.model.compute_logits(hidden_states), whole.compute_logits(output))
        compared.append(len(positions))

    hook = runner.model.register_forward_hook(drive, with_kwargs=True)
    generator = torch.Generator().manual_seed(0)
    asked = [torch.randint(3, 98, (10 * i + 4,), generator=generator).tolist() for i in range(len(SCALES))]
    generate(engine, asked, SCALES, tokens=8)
    hook.remove()
    assert max(compared) > 100 and compared.count(len(SCALES)) == 7  # prefill, and each step of decoding
