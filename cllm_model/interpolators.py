"""Interpolators: how a dual-branch layer blends the outputs of its two branches.

Pure modules: they see hidden states only, and know nothing of attention, caches, checkpoints or engines, so that the
Hugging Face and the vLLM model share them. Shapes are ``(..., H)``: ``(B, T, H)`` in Hugging Face, ``(tokens, H)`` in
vLLM. Symbols follow the paper (arXiv 2501.10979, section 3): ``x`` is the layer's input, ``hp`` and ``he`` are the
outputs of the pretrained and the expanded branch after their residual additions.
"""

import torch
from torch import Tensor, nn
from torch.nn import init


class Interpolator(nn.Module):
    """A linear interpolator: ``(1 - w) * hp + w * he`` with a method's own weight ``w`` in [0, 1].

    Args:
        hidden_size: Width H of the hidden states.
        initial_factor: Logit of the weight that a fresh interpolator starts with.
    """

    def __init__(self, hidden_size: int, initial_factor: float = 0.0) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.initial_factor = float(initial_factor)

    def reset_parameters(self) -> None:
        """Set every parameter to its fresh value."""
        raise NotImplementedError

    def weight(self, x: Tensor, hp: Tensor, he: Tensor) -> Tensor:
        """Return the share of the expanded branch, broadcastable to ``(..., 1)``."""
        raise NotImplementedError


class Lerp(Interpolator):
    """Linear interpolation with one learned weight per layer: ``w = sigmoid(factor)`` (paper, "Lerp")."""

    def __init__(self, hidden_size: int, initial_factor: float = 0.0) -> None:
        super().__init__(hidden_size, initial_factor)
        self.factor = nn.Parameter(torch.empty(1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Give each layer the same starting weight."""
        init.constant_(self.factor, self.initial_factor)

    def weight(self, x: Tensor, hp: Tensor, he: Tensor) -> Tensor:
        """Return ``sigmoid(factor)``, (1,)."""
        return torch.sigmoid(self.factor)


class DLerp(Interpolator):
    """Dynamic linear interpolation, a weight per token: ``w = sigmoid(fc([hp; he]))`` (paper, "DLerp").

    A fresh gate has zero weights, so that it starts as `Lerp` with the same factor.
    """

    def __init__(self, hidden_size: int, initial_factor: float = 0.0) -> None:
        super().__init__(hidden_size, initial_factor)
        self.fc = nn.Linear(2 * hidden_size, 1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Give each token the same starting weight."""
        init.zeros_(self.fc.weight)
        init.constant_(self.fc.bias, self.initial_factor)

    def weight(self, x: Tensor, hp: Tensor, he: Tensor) -> Tensor:
        """Return the gate of each token, (..., 1)."""
        return torch.sigmoid(self.fc(torch.cat([hp, he], dim=-1)))


MERGE_METHODS: dict[str, type[Interpolator]] = {"lerp": Lerp, "dlerp": DLerp}


def build_interpolator(method: str, hidden_size: int, initial_factor: float = 0.0) -> Interpolator:
    """Return a fresh interpolator of a merge method.

    Raises:
        ValueError: The method is not one of `MERGE_METHODS`.
    """
    if method not in MERGE_METHODS:
        raise ValueError(f"merge_method: {method!r} is not one of {', '.join(MERGE_METHODS)}")
    return MERGE_METHODS[method](hidden_size, initial_factor)


def blend(hp: Tensor, he: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """Return ``(1 - a) * hp + a * he`` with ``a = scale * weight``, and ``hp`` itself where the scale is 0.

    Shapes: hp, he (..., H); weight and the fp32 scale broadcast to (..., 1).
    Scale 0 is selected, not multiplied out, so that the base model is exact whatever the expanded branch holds.
    The blend is computed in the wider type of scale and hidden states, and rounded once, to that of `hp`.
    """
    a = scale * weight
    return torch.where(scale == 0, hp, (1 - a) * hp + a * he).to(hp.dtype)
