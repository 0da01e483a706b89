"""The measure of a fresh expansion: how far it is from its base before any training."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM


def difference_to_base(model: Path, tokens: int = 32) -> float:
    """Return the largest difference in logits between an expanded checkpoint and the base inside it.

    Args:
        model: Directory of an expanded checkpoint.
        tokens: Number of random tokens, from a fixed seed, that both read.
    """
    dual = AutoModelForCausalLM.from_pretrained(model).eval()
    generator = torch.Generator().manual_seed(0)
    input_ids = torch.randint(dual.config.vocab_size, (1, tokens), generator=generator)
    with torch.inference_mode():
        controlled = dual(input_ids, control_scale=1.0).logits
        base = dual(input_ids, control_scale=0.0).logits
    return (controlled - base).abs().max().item()
