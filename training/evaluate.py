"""Scores: the share of greedy answers that equal the expected one exactly, each skill alone."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from cllm_model.modeling import ControlLLMForCausalLM
from training.data import Chat, encode, token_ids
from training.losses import mixing


def generate(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, ids: Tensor, mask: Tensor, **settings: Any
) -> Tensor:
    """Prompts and what the model writes after them, (B, T); its own generation defaults do not apply."""
    config = GenerationConfig(pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, **settings)
    inputs = {"input_ids": ids.to(model.device), "attention_mask": mask.to(model.device)}
    return cast(Any, model).generate(**inputs, generation_config=config)


@torch.inference_mode()
def answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    chats: Sequence[Chat],
    batch_size: int,
    max_new_tokens: int,
) -> list[str]:
    """Greedy answers in the order of `chats`."""
    was_training = model.training
    model.eval()
    prompts = [token_ids(tokenizer, item.messages) for item in chats]
    # Prompts and answers of one length together: padding is what costs most on a CPU.
    order = sorted(range(len(chats)), key=lambda i: (len(chats[i].answer), len(prompts[i])))
    found = [""] * len(chats)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        width = max(len(prompts[i]) for i in rows)
        pad = tokenizer.pad_token_id
        ids = torch.tensor([[pad] * (width - len(prompts[i])) + prompts[i] for i in rows])
        mask = torch.tensor([[0] * (width - len(prompts[i])) + [1] * len(prompts[i]) for i in rows])
        out = generate(model, tokenizer, ids, mask, max_new_tokens=max_new_tokens, do_sample=False)
        for i, tokens in zip(rows, out[:, width:].tolist(), strict=True):
            found[i] = str(tokenizer.decode(tokens, skip_special_tokens=True))
    model.train(was_training)
    return found


def score(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    chats: Sequence[Chat],
    batch_size: int,
    max_new_tokens: int,
) -> float:
    """Share of the answers that are exactly right."""
    found = answers(model, tokenizer, chats, batch_size, max_new_tokens)
    return sum(given == item.answer for given, item in zip(found, chats, strict=True)) / len(chats)


def text_batch(tokenizer: PreTrainedTokenizerBase, chats: Sequence[Chat]) -> dict[str, Tensor]:
    """Whole conversations as one batch, padded on the right."""
    rows = [encode(tokenizer, item)["input_ids"] for item in chats]
    width = max(map(len, rows))
    pad = tokenizer.pad_token_id
    return {
        "input_ids": torch.tensor([row + [pad] * (width - len(row)) for row in rows]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows]),
    }


@torch.inference_mode()
def branch_statistics(
    model: ControlLLMForCausalLM, tokenizer: PreTrainedTokenizerBase, chats: Sequence[Chat]
) -> dict[int, dict[str, float]]:
    """Mean interpolation weight and alignment of each dual-branch layer on whole conversations."""
    keeps, model.model.keep_branches = model.model.keep_branches, True
    batch = {name: tensor.to(model.device) for name, tensor in text_batch(tokenizer, chats).items()}
    model.eval()
    model(**batch, use_cache=False)
    found = mixing(model.model.branches, batch["attention_mask"])
    model.model.keep_branches, model.model.branches = keeps, {}
    return found
