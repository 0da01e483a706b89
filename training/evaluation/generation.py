"""Greedy answers of a model in memory, and batches of text for it. Knows no suites and no scores."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from cllm_model.scale import TRAINED_SCALE
from training.data import Chat, encode, token_ids


def has_dial(model: PreTrainedModel) -> bool:
    """Tell whether a model takes a control scale."""
    return hasattr(model, "control_scale")


@contextmanager
def at_scale(model: PreTrainedModel, scale: float) -> Iterator[None]:
    """Within it, `model` runs at a control scale, and not in training mode; afterwards it is as it was.

    Raises:
        ValueError: A plain model is asked for another scale than 1.
    """
    if not has_dial(model) and scale != TRAINED_SCALE:
        raise ValueError(f"scale: {scale:g} is not possible with a plain model; allowed: {TRAINED_SCALE:g}")
    controlled = cast(Any, model)
    before, was_training = getattr(model, "control_scale", None), model.training
    model.eval()
    if has_dial(model):
        controlled.control_scale = scale
    try:
        yield
    finally:
        model.train(was_training)
        if has_dial(model):
            controlled.control_scale = before


def generate(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, ids: Tensor, mask: Tensor, **settings: Any
) -> Tensor:
    """Prompts and what the model writes after them, (B, T); its own generation defaults do not apply."""
    config = GenerationConfig(pad_token_id=padding(tokenizer), eos_token_id=tokenizer.eos_token_id, **settings)
    inputs = {"input_ids": ids.to(model.device), "attention_mask": mask.to(model.device)}
    return cast(Any, model).generate(**inputs, generation_config=config)


def padding(tokenizer: PreTrainedTokenizerBase) -> int:
    """A token to pad with; many tokenizers have none, and it is masked anyway."""
    return tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id


@torch.inference_mode()
def complete(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[int]],
    batch_size: int,
    max_new_tokens: int,
    expected_length: Callable[[int], int] = lambda index: 0,
) -> list[str]:
    """What the model writes greedily after each prompt, given as token ids, in their order.

    Prompts are batched with those of a similar `expected_length` of the answer (by index), and of a similar length.
    """
    order = sorted(range(len(prompts)), key=lambda i: (expected_length(i), len(prompts[i])))
    found = [""] * len(prompts)
    pad = padding(tokenizer)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        batch = padded([prompts[i] for i in rows], pad, left=True)
        ids = batch["input_ids"]
        out = generate(model, tokenizer, ids, batch["attention_mask"], max_new_tokens=max_new_tokens, do_sample=False)
        for i, tokens in zip(rows, out[:, ids.shape[1] :].tolist(), strict=True):
            found[i] = str(tokenizer.decode(tokens, skip_special_tokens=True))
    return found


def answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    chats: Sequence[Chat],
    batch_size: int,
    max_new_tokens: int,
    scale: float = TRAINED_SCALE,
) -> list[str]:
    """Greedy answers in the order of `chats`."""
    prompts = [token_ids(tokenizer, item.messages) for item in chats]
    with at_scale(model, scale):
        return complete(model, tokenizer, prompts, batch_size, max_new_tokens, lambda index: len(chats[index].answer))


def score(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    chats: Sequence[Chat],
    batch_size: int,
    max_new_tokens: int,
    scale: float = TRAINED_SCALE,
) -> float:
    """Share of the answers that are right."""
    found = answers(model, tokenizer, chats, batch_size, max_new_tokens, scale)
    return sum(is_right(given, item.answer) for given, item in zip(found, chats, strict=True)) / len(chats)


def is_right(given: str, expected: str) -> bool:
    """Whether an answer is exactly the expected one; white space around it does not count, as decoding may lose it."""
    return given.strip() == expected.strip()


def text_batch(tokenizer: PreTrainedTokenizerBase, chats: Sequence[Chat]) -> dict[str, Tensor]:
    """Whole conversations as one batch, padded on the right."""
    return padded([encode(tokenizer, item)["input_ids"] for item in chats], padding(tokenizer))


def padded(rows: Sequence[list[int]], pad: int, left: bool = False) -> dict[str, Tensor]:
    """Token ids as one batch, `input_ids` and `attention_mask` (B, T), padded on the right or on the `left`."""
    width = max(map(len, rows))

    def filled(values: list[int], filler: int) -> list[int]:
        gap = [filler] * (width - len(values))
        return gap + values if left else values + gap

    return {
        "input_ids": torch.tensor([filled(row, pad) for row in rows]),
        "attention_mask": torch.tensor([filled([1] * len(row), 0) for row in rows]),
    }
