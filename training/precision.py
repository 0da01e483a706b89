"""How layers are computed in training, without a change of what they compute: types of parameters, compilation."""

from collections.abc import Callable
from typing import Any

from torch import nn

from training.distributed import UNITS

_VARIANTS = 64  # torch's own limit of 8 is less than the combinations below; beyond it layers would run uncompiled


def trained_in_fp32(model: nn.Module) -> None:
    """Keep what trains in fp32, or small updates to a narrower type would be lost; what is frozen stays as it is."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def compile_layers(model: nn.Module, backend: str | Callable[..., Any] = "inductor") -> None:
    """Compile each decoder layer, branches included, by itself; modules stay in place and keep their names.

    All layers share their code, so it is compiled a few times only: for frozen and trained weights, inputs with and
    without a gradient, fixed and varying lengths.
    """
    for module in model.modules():
        if isinstance(module, UNITS):
            module.compile(backend=backend, recompile_limit=_VARIANTS)


def run_uncompiled(model: nn.Module) -> None:
    """Undo `compile_layers`: generation has a cache of keys and values, for which each layer would be compiled anew."""
    for module in model.modules():
        if isinstance(module, UNITS):
            module._compiled_call_impl = None
