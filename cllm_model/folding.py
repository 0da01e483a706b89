"""Folding two weight tensors into one: the maths of merging a dual-branch layer back into a plain one.

Pure functions of tensors, in fp32. Source: the authors' merge back (linkedin/ControlLLM); see `Interpolator.fold` for
which merge method folds how.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

_EPSILON = 1e-6


def fold_linear(pretrained: Tensor, expanded: Tensor, weight: float) -> Tensor:
    """Return ``(1 - weight) * pretrained + weight * expanded`` in fp32."""
    return (1 - weight) * pretrained.float() + weight * expanded.float()


def fold_spherical(pretrained: Tensor, expanded: Tensor, weight: float) -> Tensor:
    """Return the two tensors interpolated on the arc between their rows, in fp32.

    A row is a vector of the last dimension. Rows in one direction are interpolated linearly, up to the epsilon that
    keeps the angle's sine from 0.
    """
    pretrained, expanded = pretrained.float(), expanded.float()
    cosine = (F.normalize(pretrained, dim=-1) * F.normalize(expanded, dim=-1)).sum(dim=-1, keepdim=True)
    angle = torch.acos(cosine.clamp(-1 + _EPSILON, 1 - _EPSILON))
    sine = torch.sin(angle) + _EPSILON
    return (torch.sin((1 - weight) * angle) / sine) * pretrained + (torch.sin(weight * angle) / sine) * expanded
