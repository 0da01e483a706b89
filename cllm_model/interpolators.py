"""Interpolators: how a dual-branch layer blends the outputs of its two branches. One class for each merge method.

Pure modules: they see hidden states only, and know nothing of attention, caches, checkpoints or engines, so that the
Hugging Face model, the vLLM model, training and merging back share them. Shapes are ``(..., H)``: ``(B, T, H)`` in
Hugging Face, ``(tokens, H)`` in vLLM. Symbols follow the paper (https://arxiv.org/abs/2501.10979, section 3): ``x`` is
the layer's input, ``hp`` and ``he`` are the outputs of the pretrained and the expanded branch after their residual
additions, ``w`` is the weight of the expanded branch. Weights are fp32 whatever the hidden states are.
"""

from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import init

from cllm_model.folding import fold_linear, fold_spherical

Fold = Callable[[Tensor, Tensor, float], Tensor]


class Interpolator(nn.Module):
    """A linear interpolator, ``(1 - w) * hp + w * he``, unless a subclass says otherwise.

    Args:
        hidden_size: Width H of the hidden states.
        initial_factor: Logit of the weight that a fresh interpolator starts with; None for the expanded branch alone.

    Attributes:
        linear: The output is a weighted sum of `hp` and `he`, so that it may be taken of their summands too.
        fold: How the branches' weight tensors become one when they are merged back; None where they cannot.
    """

    linear: ClassVar[bool] = True
    fold: ClassVar["staticmethod[[Tensor, Tensor, float], Tensor] | None"] = None

    def __init__(self, hidden_size: int, initial_factor: float | None = 0.0) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.initial_factor = initial_factor
        self.build()
        self.reset_parameters()

    def build(self) -> None:
        """Register the parameters of the method."""
        raise NotImplementedError

    def reset_parameters(self) -> None:
        """Set every parameter to its fresh value, with which an expansion gives what its base gives."""
        raise NotImplementedError

    def factor_parameter(self) -> nn.Parameter | None:
        """Return the parameter that holds the interpolation factor: what a frozen factor keeps from training."""
        raise NotImplementedError

    def factor_weight(self) -> float:
        """Return the weight that the factor alone stands for, which is every token's in a fresh interpolator."""
        factor = self.factor_parameter()
        return 1.0 if factor is None else torch.sigmoid(factor.detach().float()).item()

    def weight(self, x: Tensor, hp: Tensor, he: Tensor) -> Tensor:
        """Return the weight of the expanded branch in [0, 1], fp32, broadcastable to ``(..., 1)``."""
        raise NotImplementedError

    def applied(self, weight: Tensor) -> Tensor:
        """Return the share of the expanded branch that a weight leads to: the weight itself, or 0 or 1 for a choice."""
        return weight

    def combine(self, hp: Tensor, he: Tensor, weight: Tensor) -> Tensor:
        """Return the merged output of a method that is not `linear`, (..., H), fp32."""
        raise NotImplementedError

    def divergence_target(self, hp: Tensor) -> Tensor:
        """Return what the divergence loss compares the expanded branch with, (..., H)."""
        return hp

    def counted(self, weight: Tensor) -> Tensor:
        """Return 1 for tokens whose branches the divergence loss compares, else 0, broadcastable to (..., 1)."""
        return torch.ones_like(weight)

    def forward(self, hp: Tensor, he: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
        """Return ``hp + scale * (merged - hp)``, (..., H), in the type of `hp`; `scale` broadcasts to (..., 1)."""
        if self.linear:
            return blend(hp, he, self.applied(weight), scale)
        return blend(hp, self.combine(hp, he, weight), torch.ones_like(scale), scale)


class Lerp(Interpolator):
    """Linear interpolation with one weight per layer: ``w = sigmoid(factor)`` (paper, "Lerp").

    Without a factor (None, the published ``null``) the weight is 1 and the layer has no interpolation parameter.
    """

    fold: ClassVar["staticmethod[[Tensor, Tensor, float], Tensor] | None"] = staticmethod(fold_linear)

    factor: nn.Parameter | None

    def build(self) -> None:
        """Register the factor, unless there is none."""
        self.register_parameter("factor", None if self.initial_factor is None else nn.Parameter(torch.empty(1)))

    def reset_parameters(self) -> None:
        """Give each layer the same starting weight."""
        if self.factor is not None and self.initial_factor is not None:
            init.constant_(self.factor, self.initial_factor)

    def factor_parameter(self) -> nn.Parameter | None:
        """Return the factor, (1,)."""
        return self.factor

    def weight(self, x: Tensor, hp: Tensor, he: Tensor) -> Tensor:
        """Return ``sigmoid(factor)``, (1,)."""
        return hp.new_ones(1, dtype=torch.float32) if self.factor is None else torch.sigmoid(self.factor.float())


class Slerp(Lerp):
    """Spherical linear interpolation: ``sin((1-w)a)/sin(a) * hp + sin(wa)/sin(a) * he``, ``a`` the angle of hp and he.

    One weight per layer as in `Lerp`. Each token is decided by itself, where the authors' code falls back to the linear
    form for a whole batch as soon as one token has parallel branches. Source: paper, "Slerp"; K. Shoemake, "Animating
    rotation with quaternion curves" (1985).
    """

    linear = False
    fold = staticmethod(fold_spherical)

    def combine(self, hp: Tensor, he: Tensor, weight: Tensor) -> Tensor:
        """Return the interpolation on the arc, and on the line where the branches are parallel or opposite."""
        hp, he = hp.float(), he.float()
        u, v = F.normalize(hp, dim=-1), F.normalize(he, dim=-1)
        cosine = (u * v).sum(dim=-1, keepdim=True).clamp(-1, 1)
        # Within 1e-3 of 0 or of a half turn. Told by the chord: near 1 an fp32 cosine is too coarse for the angle.
        chord = torch.minimum((u - v).square().sum(dim=-1, keepdim=True), (u + v).square().sum(dim=-1, keepdim=True))
        straight = chord < 1e-6
        # The arc's gradient is not finite there; it is computed of a right angle instead, and not selected.
        cosine = torch.where(straight, 0.0, cosine)
        angle = torch.acos(cosine)
        sine = torch.sqrt(1 - cosine.square() + 1e-8)
        arc = torch.sin((1 - weight) * angle) / sine * hp + torch.sin(weight * angle) / sine * he
        return torch.where(straight, (1 - weight) * hp + weight * he, arc)


class DLerp(Interpolator):
    """Dynamic linear interpolation, a weight per token: ``w = sigmoid(fc([hp; he]))`` (paper, "DLerp").

    A fresh gate has zero weights, so that it starts as `Lerp` with the same factor.
    """

    fold = staticmethod(fold_spherical)
    features: ClassVar[int] = 2
    """Hidden states that the gate reads."""

    def build(self) -> None:
        """Register the gate."""
        self.fc = nn.Linear(self.features * self.hidden_size, 1)

    def reset_parameters(self) -> None:
        """Give each token the same starting weight."""
        assert self.initial_factor is not None
        init.zeros_(self.fc.weight)
        init.constant_(self.fc.bias, self.initial_factor)

    def factor_parameter(self) -> nn.Parameter:
        """Return the gate's bias, (1,)."""
        return self.fc.bias

    def weight(self, x: Tensor, hp: Tensor, he: Tensor) -> Tensor:
        """Return the gate of each token, (..., 1)."""
        return torch.sigmoid(self.fc(torch.cat([hp, he], dim=-1)).float())


class DLerpIn(DLerp):
    """Dynamic linear interpolation gated by the layer's input: ``w = sigmoid(fc(x))`` (the authors' ``dlerpin``)."""

    features = 1

    def weight(self, x: Tensor, hp: Tensor, he: Tensor) -> Tensor:
        """Return the gate of each token, (..., 1)."""
        return torch.sigmoid(self.fc(x).float())


class MoE(Interpolator):
    """A choice between the branches, token by token: the expanded one iff ``softmax(gate(x))[1]`` is the larger.

    Top-1 of a mixture of two experts (https://arxiv.org/abs/1701.06538), gated by the layer's input. The choice has no
    gradient: only a divergence loss that is weighted by the gate's own probability trains the gate.
    """

    def build(self) -> None:
        """Register the gate."""
        self.gate = nn.Linear(self.hidden_size, 2)

    def reset_parameters(self) -> None:
        """Choose at random, with a lean to the expanded branch by the factor: a branch that is never chosen learns not.

        Whatever a fresh gate chooses, both branches give the same.
        """
        assert self.initial_factor is not None
        self.gate.reset_parameters()
        init.zeros_(self.gate.bias)
        init.constant_(self.gate.bias[1:], self.initial_factor)

    def factor_parameter(self) -> nn.Parameter:
        """Return the gate's bias, (2,)."""
        return self.gate.bias

    def factor_weight(self) -> float:
        """Return the expanded branch's probability at the bias alone."""
        return self.gate.bias.detach().float().softmax(dim=-1)[1].item()

    def weight(self, x: Tensor, hp: Tensor, he: Tensor) -> Tensor:
        """Return the probability of the expanded branch, (..., 1)."""
        pretrained, expanded = self.gate(x).float().split(1, dim=-1)
        return torch.sigmoid(expanded - pretrained)

    def applied(self, weight: Tensor) -> Tensor:
        """Return 1 where the expanded branch is chosen, else 0."""
        return (weight > 0.5).float()

    def counted(self, weight: Tensor) -> Tensor:
        """Return 1 where the expanded branch is chosen: the other tokens do not use it."""
        return self.applied(weight)


class Proj(Lerp):
    """`Lerp` whose divergence loss compares the expanded branch with ``linear_proj(hp)`` (the authors' ``proj``).

    The map is learned; the output is `Lerp`'s.
    """

    def build(self) -> None:
        """Register the factor and the map."""
        super().build()
        self.linear_proj = nn.Linear(self.hidden_size, self.hidden_size, bias=False)

    def reset_parameters(self) -> None:
        """Start with the identity as the map."""
        super().reset_parameters()
        init.eye_(self.linear_proj.weight)

    def divergence_target(self, hp: Tensor) -> Tensor:
        """Return the linear map of the pretrained branch."""
        return self.linear_proj(hp)


class Prog(Lerp):
    """A lateral connection from the pretrained branch: ``(1-w) * lateral_connection(hp) + w * he``.

    The authors' ``prog``, after Progressive Neural Networks (https://arxiv.org/abs/1606.04671). A fresh connection is
    the identity; the authors add noise, with which a fresh expansion differs from its base.
    """

    linear = False
    fold = None

    def build(self) -> None:
        """Register the factor and the connection."""
        super().build()
        self.lateral_connection = nn.Linear(self.hidden_size, self.hidden_size, bias=False)

    def reset_parameters(self) -> None:
        """Start with the identity as the connection."""
        super().reset_parameters()
        init.eye_(self.lateral_connection.weight)

    def combine(self, hp: Tensor, he: Tensor, weight: Tensor) -> Tensor:
        """Return the blend of the connection's output and the expanded branch."""
        return (1 - weight) * self.lateral_connection(hp) + weight * he


MERGE_METHODS: dict[str, type[Interpolator]] = {
    "lerp": Lerp,
    "slerp": Slerp,
    "dlerp": DLerp,
    "dlerpin": DLerpIn,
    "moe": MoE,
    "proj": Proj,
    "prog": Prog,
}
"""Published name of a merge method -> its interpolator."""


def check_method(method: str, initial_factor: float | None) -> None:
    """Check that a merge method exists and can start with a factor.

    Raises:
        ValueError: It is not one of `MERGE_METHODS`, or the factor is null in a method that needs one.
    """
    if method not in MERGE_METHODS:
        raise ValueError(f"merge_method: {method!r} is not one of {', '.join(MERGE_METHODS)}")
    if initial_factor is None and MERGE_METHODS[method] is not Lerp:
        raise ValueError(f"interpolation_factor: null is not allowed with merge_method {method!r}, only with 'lerp'")


def build_interpolator(method: str, hidden_size: int, initial_factor: float | None = 0.0) -> Interpolator:
    """Return a fresh interpolator of a merge method.

    Raises:
        ValueError: See `check_method`.
    """
    check_method(method, initial_factor)
    return MERGE_METHODS[method](hidden_size, initial_factor)


def blend(hp: Tensor, he: Tensor, weight: Tensor | float, scale: Tensor) -> Tensor:
    """Return ``(1 - a) * hp + a * he`` with ``a = scale * weight``, and ``hp`` itself where the scale is 0.

    Shapes: hp, he (..., H); weight and the fp32 scale broadcast to (..., 1).
    Scale 0 is selected, not multiplied out, so that the base model is exact whatever the expanded branch holds.
    The blend is computed in the wider type of scale and hidden states, and rounded once, to that of `hp`.
    """
    a = scale * weight
    return torch.where(scale == 0, hp, (1 - a) * hp + a * he).to(hp.dtype)
