"""The divergence loss, which keeps the two branches of a dual-branch layer aligned while one of them learns.

Pure maths on hidden states: which layers, which tokens and how it joins the training loss is decided elsewhere.
Source: arXiv 2501.10979, section 3.3, in the form of the authors' code (smooth-L1 of the cosine distance).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


def cosine_linear(hp: Tensor, he: Tensor) -> Tensor:
    """Return the cosine distance ``relu(1 - cos(hp, he))`` per token: (..., H), (..., H) -> (...)."""
    return F.relu(1 - F.cosine_similarity(hp.float(), he.float(), dim=-1))


def cosine(hp: Tensor, he: Tensor) -> Tensor:
    """Return smooth-L1 of the cosine distance per token, as published: half its square below 1."""
    distance = cosine_linear(hp, he)
    return F.smooth_l1_loss(distance, torch.zeros_like(distance), reduction="none")


def mse(hp: Tensor, he: Tensor) -> Tensor:
    """Return the squared distance, averaged over H, per token: (..., H), (..., H) -> (...)."""
    return (hp.float() - he.float()).square().mean(dim=-1)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"cosine": cosine, "cosine_linear": cosine_linear, "mse": mse}

OWN_WEIGHT = -1.0
"""The published `interpolation_loss_alpha` that stands for the layer's own interpolation weight."""


class Branches(NamedTuple):
    """What the two branches of one dual-branch layer gave in one forward pass.

    Attributes:
        pretrained: Output of the pretrained layer, (B, T, H).
        expanded: Output of the expanded layer, (B, T, H).
        weight: Interpolation weight of the expanded layer, fp32, broadcastable to (B, T, 1).
        target: What the divergence loss compares `expanded` with, (B, T, H): `pretrained`, or a map of it.
        counted: Tokens that the divergence loss counts, broadcastable to (B, T, 1): all of them, or those that chose
            the expanded branch where the merge method is a choice.
    """

    pretrained: Tensor
    expanded: Tensor
    weight: Tensor
    target: Tensor
    counted: Tensor


@dataclass(frozen=True)
class Divergence:
    """Which divergence loss to compute, and how much of it.

    Args:
        loss: One of `LOSSES`.
        weight: Factor alpha of the loss; `OWN_WEIGHT` (-1) weighs each token by its interpolation weight.
    """

    loss: str = "mse"
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise ValueError(f"divergence.loss: {self.loss!r} is not one of {', '.join(LOSSES)}")
        if self.weight < 0 and self.weight != OWN_WEIGHT:
            raise ValueError(f"divergence.weight: {self.weight} is neither >= 0 nor {OWN_WEIGHT:g}")

    def per_token(self, branches: Branches) -> Tensor:
        """Return ``alpha * loss`` of each token of one layer, (B, T)."""
        loss = LOSSES[self.loss](branches.target, branches.expanded)  # (B, T)
        alpha = branches.weight.squeeze(-1) if self.weight == OWN_WEIGHT else self.weight
        return alpha * branches.counted.squeeze(-1) * loss

    def __call__(self, branches: Branches, mask: Tensor | None = None) -> Tensor:
        """Return the loss of one layer: the mean of ``alpha * loss``, a scalar.

        Args:
            branches: What the layer's branches gave.
            mask: Tokens to average over, (B, T); all of them by default.
        """
        loss = self.per_token(branches)
        if mask is None:
            return loss.mean()
        mask = mask.to(loss.dtype)
        return (loss * mask).sum() / mask.sum()
