"""Whether greedy answers are Hugging Face's: the reference of every test of vLLM and of the server."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

import cllm_model  # noqa: F401

MARGIN = 1e-3
"""Where the two best logits are closer than this, rounding may choose: nothing is compared from there on."""


def load_hf(path: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()


@torch.no_grad()
def assert_greedy(hf: Any, prompts: Sequence[list[int]], answers: Sequence[list[int]], scales: Sequence[float]) -> None:
    """Every token is the one that Hugging Face ranks first after the same tokens: by induction, its greedy answer."""
    compared = 0
    for prompt, answer, scale in zip(prompts, answers, scales, strict=True):
        hf.control_scale = scale
        logits = hf(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        best = logits.topk(2)
        close = (best.values[:, 0] - best.values[:, 1] < MARGIN).nonzero()
        stop = int(close[0]) if len(close) else len(answer)
        assert answer[:stop] == best.indices[:stop, 0].tolist()
        compared += stop
    total = sum(map(len, answers))
    print(f"compared {compared} of {total} tokens; {total - compared} cut at margins below {MARGIN:g}")  # noqa: T201
    assert compared >= 0.95 * total


@torch.no_grad()
def logprob_errors(
    hf: Any, prompts: Sequence[list[int]], answers: Sequence[list[int]], scales: Sequence[float], found: Sequence[Any]
) -> torch.Tensor:
    """How far the logprobs of each answer's own tokens, found as {token: logprob} per step, are from Hugging Face's."""
    errors = []
    for prompt, answer, scale, steps in zip(prompts, answers, scales, found, strict=True):
        hf.control_scale = scale
        logits = hf(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        expected = logits.float().log_softmax(-1)
        errors += [abs(expected[i, token].item() - steps[i][token]) for i, token in enumerate(answer)]
    return torch.tensor(errors)
