"""Measures on logits and branches that the trainer adds up and the report shows. Pure functions of tensors."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cllm_model.divergence import Branches, Divergence

IGNORED = -100  # the label of a token that is not learned


def masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    """Sum over the tokens of a mask; both (B, T). What is masked counts 0 even if it is not finite."""
    return torch.where(mask.bool(), values, 0.0).sum()


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the tokens of a mask; both (B, T)."""
    return masked_sum(values, mask) / mask.sum()


def tokens_of(batch: Mapping[str, Any]) -> Tensor:
    """The tokens of a batch that are not padding, (B, T) bool; a batch without an attention mask has no padding."""
    mask = batch.get("attention_mask")
    ids: Tensor = batch["input_ids"]
    return torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()


def divergence_tokens(batch: Mapping[str, Any], positions: str) -> Tensor:
    """The tokens that the divergence loss averages over, (B, T) bool.

    Args:
        batch: `input_ids`, `labels` and, where there is padding, `attention_mask`, all (B, T).
        positions: The recipe's `divergence.positions`.
    """
    if positions == "published":
        return torch.ones_like(batch["input_ids"], dtype=torch.bool)
    tokens = tokens_of(batch)
    if positions == "all":
        return tokens
    learned: Tensor = batch["labels"] != IGNORED
    return tokens & (learned if positions == "completion" else ~learned)


def mean_divergence(divergence: Divergence, branches: Mapping[int, Branches]) -> Tensor:
    """The divergence loss of each token, averaged over the dual-branch layers, (B, T)."""
    return torch.stack([divergence.per_token(branch) for branch in branches.values()]).mean(dim=0)


def mean_gate(branches: Mapping[int, Branches]) -> Tensor:
    """The interpolation weight of each token, averaged over the dual-branch layers, (B, T)."""
    gates = [branch.weight.expand(*branch.expanded.shape[:2], 1).squeeze(-1) for branch in branches.values()]
    return torch.stack(gates).mean(dim=0)


def pool_kl(batch: Mapping[str, Tensor], logits: Tensor) -> Tensor:
    """KL(teacher || model) of each position's prediction, (B, T), over the kept tokens and all others as one class.

    Merging classes never increases a KL divergence, so this is a lower bound of the whole one, and equal to it where
    the pool keeps every token. Padding gets a value too and must be masked.

    Args:
        batch: Of a rehearsal pool: `top_ids`, `top_logprobs`, (B, T, K), and `rest_logprobs`, (B, T).
        logits: Of the model, (B, T, V).
    """
    given = logits.float().gather(-1, batch["top_ids"]) - logits.float().logsumexp(dim=-1, keepdim=True)  # (B, T, K)
    # An fp32 sum cannot tell a mass below 1e-7 from 0, and the logarithm of 0 has no gradient.
    given_rest = (1 - given.exp().sum(dim=-1)).clamp_min(1e-7).log()  # (B, T)
    # Stored in fp16, the classes add up to 1 within a thousandth only, and the teacher would not be at 0 from itself.
    expected = torch.cat([batch["top_logprobs"], batch["rest_logprobs"][..., None]], dim=-1).log_softmax(dim=-1)
    difference = expected - torch.cat([given, given_rest[..., None]], dim=-1)  # (B, T, K + 1)
    return (expected.exp() * difference).sum(dim=-1)


@torch.no_grad()
def mixing(branches: Mapping[int, Branches], mask: Tensor) -> dict[int, dict[str, float]]:
    """Mean interpolation weight and cosine between the branches (alignment) of each dual-branch layer."""
    found = {}
    for layer, branch in branches.items():
        cosine = F.cosine_similarity(branch.pretrained.float(), branch.expanded.float(), dim=-1)  # (B, T)
        weight = branch.weight.float().expand(*cosine.shape, 1).squeeze(-1)
        found[layer] = {
            "weight": masked_mean(weight, mask).item(),
            "alignment": masked_mean(cosine, mask).item(),
        }
    return found
