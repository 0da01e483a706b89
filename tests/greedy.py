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
def logits_of(hf: Any, prompt: list[int], answer: list[int], scale: float) -> torch.Tensor:
    """Hugging Face's logits for each token of an answer, (tokens, vocabulary)."""
    hf.control_scale = scale
    return hf(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1].float()


def decided(hf: Any, prompt: list[int], answer: list[int], scale: float) -> list[int]:
    """The tokens that Hugging Face ranks first after the same tokens, up to the first near tie."""
    best = logits_of(hf, prompt, answer, scale).topk(2)
    close = (best.values[:, 0] - best.values[:, 1] < MARGIN).nonzero()
    return best.indices[: int(close[0]) if len(close) else len(answer), 0].tolist()


def assert_greedy(
    hf: Any, prompts: Sequence[list[int]], answers: Sequence[list[int]], scales: Sequence[float]
) -> list[int]:
    """Every token is the one that Hugging Face ranks first: by induction, its greedy answer.

    Returns:
        How many tokens of each answer could be compared: at least 95 % of all.
    """
    compared = []
    for prompt, answer, scale in zip(prompts, answers, scales, strict=True):
        best = decided(hf, prompt, answer, scale)
        assert answer[: len(best)] == best
        compared.append(len(best))
    total = sum(map(len, answers))
    cut = total - sum(compared)
    print(f"compared {sum(compared)} of {total} tokens; {cut} cut at margins below {MARGIN:g}")  # noqa: T201
    assert sum(compared) >= 0.95 * total
    return compared


def logprob_errors(
    hf: Any, prompts: Sequence[list[int]], answers: Sequence[list[int]], scales: Sequence[float], found: Sequence[Any]
) -> torch.Tensor:
    """How far the logprobs of each answer's own tokens, found as {token: logprob} per step, are from Hugging Face's."""
    errors = []
    for prompt, answer, scale, steps in zip(prompts, answers, scales, found, strict=True):
        expected = logits_of(hf, prompt, answer, scale).log_softmax(-1)
        errors += [abs(expected[i, token].item() - steps[i][token]) for i, token in enumerate(answer)]
    return torch.tensor(errors)
