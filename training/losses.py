"""Measures on logits and branches that the trainer adds up and the report shows. Pure functions of tensors."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from cllm_model.divergence import Branches


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the tokens that are not padding; both (B, T)."""
    return (values * mask).sum() / mask.sum()


def token_kl(base: Tensor, dual: Tensor) -> Tensor:
    """KL(base || dual) of every position's prediction: logits (B, T, V) -> (B, T)."""
    expected = F.log_softmax(base.float(), dim=-1)
    given = F.log_softmax(dual.float(), dim=-1)
    return F.kl_div(given, expected, log_target=True, reduction="none").sum(dim=-1)


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
