"""Relaxed norm: an RMS norm of the expanded branch that lets part of its input through.

One module for Hugging Face and vLLM. Source: linkedin/ControlLLM, ``interpolation_norm_alpha``.
"""

import torch
from torch import Tensor, nn
from torch.nn import init

DYNAMIC = -1.0
"""The published ``interpolation_norm_alpha`` that stands for a share of its own in each norm, learned."""


class RelaxedNorm(nn.Module):
    """``w * x + (1 - w) * RMSNorm(x)``, with ``w = alpha``, or ``clamp(2 * sigmoid(factor) - 1, 0, 1)``.

    Args:
        hidden_size: Width H of the hidden states.
        eps: Added to the mean square.
        alpha: Share of the input, from 0 to 1; `DYNAMIC` for a learned one.
        initial_factor: What a learned share starts with; 0 is the plain norm.
    """

    interpolation_factor: nn.Parameter | None

    def __init__(self, hidden_size: int, eps: float, alpha: float, initial_factor: float | None = 0.0) -> None:
        super().__init__()
        self.variance_epsilon = eps
        self.alpha = alpha
        self.initial_factor = initial_factor
        self.weight = nn.Parameter(torch.empty(hidden_size))
        self.register_parameter("interpolation_factor", nn.Parameter(torch.empty(1)) if alpha == DYNAMIC else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start with a gain of 1 and the initial factor."""
        init.ones_(self.weight)
        if self.interpolation_factor is not None:
            assert self.initial_factor is not None
            init.constant_(self.interpolation_factor, self.initial_factor)

    def share(self) -> Tensor | float:
        """Return the share of the input, (1,) or a number."""
        if self.interpolation_factor is None:
            return self.alpha
        return (2 * torch.sigmoid(self.interpolation_factor.float()) - 1).clamp(0, 1)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Return the norm of x, (..., H); with a residual, as vLLM calls norms: of their sum, and the sum."""
        if residual is not None:
            x = x + residual
        wide = x.float()
        normed = self.weight * (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.variance_epsilon)).to(
            x.dtype
        )
        share = self.share()
        relaxed = (share * x + (1 - share) * normed).to(x.dtype)
        return relaxed if residual is None else (relaxed, x)


RELAXED = ("input_layernorm", "post_attention_layernorm")
"""The norms of a decoder layer that are relaxed."""


def relax_norms(layer: nn.Module, hidden_size: int, eps: float, alpha: float, initial_factor: float | None) -> None:
    """Give a decoder layer relaxed norms in place of its own; an alpha of 0 leaves them as they are."""
    if alpha != 0:
        for name in RELAXED:
            setattr(layer, name, RelaxedNorm(hidden_size, eps, alpha, initial_factor))
