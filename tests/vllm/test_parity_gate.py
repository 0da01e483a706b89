"""The parity gate with a real engine, in the process of its own that a training run starts."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from tests.greedy import load_hf
from training import parity


def test_a_checkpoint_is_the_same_in_vllm(base: Path, dual: Path, prompts: list[list[int]]) -> None:
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    found = parity.check(dual, load_hf(dual), plain, prompts[:4])
    assert found.skipped == {}
    assert set(found.differences) == {"reload", "base_at_scale_0", "vllm_at_scale_0", "vllm_at_scale_1"}
    assert found.differences["base_at_scale_0"] <= 1e-5
    for scale in ("0", "1"):
        assert 0 < found.differences[f"vllm_at_scale_{scale}"] <= 1e-3
