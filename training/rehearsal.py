"""Self-rehearsal: the frozen base writes requests and answers of its own, so that no old data has to be kept.

The dual-branch model contains its base. Sampling starts behind the chat template's opening of a user message, so the
base writes the request, closes it and answers it, all in one go (as in Magpie, arXiv 2406.08464).
"""

import random
from collections.abc import Iterator

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from cllm_model.modeling import ControlLLMForCausalLM
from training.evaluate import generate
from training.recipe import Rehearsal

_MARK = "rehearsed request"
_SAMPLED_AT_ONCE = 128


def opening(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids of the chat template up to where the user's text starts."""
    text = tokenizer.apply_chat_template([{"role": "user", "content": _MARK}], tokenize=False)
    assert isinstance(text, str) and _MARK in text
    return list(tokenizer(text[: text.index(_MARK)], add_special_tokens=False)["input_ids"])


@torch.no_grad()
def sample(
    model: ControlLLMForCausalLM, tokenizer: PreTrainedTokenizerBase, settings: Rehearsal, seed: int
) -> list[list[int]]:
    """Sequences written by the base branch (scale 0) that ended by themselves within `max_tokens`.

    Raises:
        RuntimeError: the base hardly ever ends what it writes, so it cannot supply its old data.
    """
    was_training, scale, keeps = model.training, model.control_scale, model.model.keep_branches
    model.eval()
    model.control_scale = 0.0
    model.model.keep_branches = False
    start = opening(tokenizer)
    prompts = torch.tensor([start] * _SAMPLED_AT_ONCE)
    found: list[list[int]] = []
    rounds = -(-settings.sequences // _SAMPLED_AT_ONCE) * 2
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for _ in range(rounds):
            out = generate(
                model,
                tokenizer,
                prompts,
                torch.ones_like(prompts),
                do_sample=True,
                temperature=settings.temperature,
                top_k=0,
                max_new_tokens=settings.max_tokens,
            )
            found += [ended for tokens in out.tolist() if (ended := _ended(tokens, len(start), tokenizer))]
            if len(found) >= settings.sequences:
                break
    model.train(was_training)
    model.control_scale = scale
    model.model.keep_branches = keeps
    if len(found) < settings.sequences:
        raise RuntimeError(
            f"rehearsal: only {len(found)} of {rounds * _SAMPLED_AT_ONCE} sequences written by the base came to an "
            f"end within {settings.max_tokens} tokens, {settings.sequences} are wanted; was the base trained on "
            "requests, not on answers only?"
        )
    return found[: settings.sequences]


def _ended(tokens: list[int], start: int, tokenizer: PreTrainedTokenizerBase) -> list[int] | None:
    if tokenizer.eos_token_id not in tokens[start:]:
        return None
    return tokens[: tokens.index(tokenizer.eos_token_id, start) + 1]


def batches(pool: list[list[int]], size: int, parts: int, pad_token_id: int, seed: int) -> Iterator[dict[str, Tensor]]:
    """Yield micro-batches for ever: each update draws `size` sequences and splits them by length into `parts`."""
    rng = random.Random(seed)
    step = size // parts
    while True:
        drawn = sorted(rng.sample(pool, size), key=len)
        for start in range(0, size, step):
            rows = drawn[start : start + step]
            width = max(map(len, rows))
            yield {
                "input_ids": torch.tensor([row + [pad_token_id] * (width - len(row)) for row in rows]),
                "attention_mask": torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows]),
            }
