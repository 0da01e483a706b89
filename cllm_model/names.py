"""The one table of tensor names: published checkpoint <-> modules here.

Base-family tensors carry the same name in both places. Only the interpolator differs: checkpoints keep its tensors
directly under ``model.layers.{i}.``, our modules keep them in ``model.layers.{i}.interpolator.``. Knows no tensor
shapes and reads no files.
"""

import re

INTERPOLATOR_NAMES = {
    "interpolation_factor": "interpolator.factor",
    "interp_weight.fc": "interpolator.fc",
    "gating.gate_network.0": "interpolator.gate",
    "linear_proj": "interpolator.linear_proj",
    "lateral_connection": "interpolator.lateral_connection",
}
"""Name under ``model.layers.{i}.`` in a checkpoint -> name of the same tensor (or its module) here."""

# The layer's number must stand directly before the name: a branch may have a tensor of that name deeper down.
RENAMINGS = [
    (rf"(layers\.\d+)\.{re.escape(checkpoint)}", rf"\1.{module}") for checkpoint, module in INTERPOLATOR_NAMES.items()
]
"""The table as (pattern, replacement) from checkpoint to module; transformers reverses them itself to save."""

_REVERSED = [
    (rf"(layers\.\d+)\.{re.escape(module)}", rf"\1.{checkpoint}") for checkpoint, module in INTERPOLATOR_NAMES.items()
]


def split_layer(name: str) -> tuple[int | None, str]:
    """Return the layer that a tensor belongs to and its name there; (None, name) for one outside the layers."""
    found = re.match(r"model\.layers\.(\d+)\.(.+)", name)
    return (int(found[1]), found[2]) if found else (None, name)


def join_layer(layer: int, rest: str) -> str:
    """Return the name of a layer's tensor; the inverse of `split_layer`."""
    return f"model.layers.{layer}.{rest}"


def is_interpolation(name: str) -> bool:
    """Tell whether a checkpoint tensor belongs to an interpolator, or is the factor of a relaxed norm."""
    return ".interpolator." in to_module(name) or name.endswith(".interpolation_factor")


def to_module(name: str) -> str:
    """Return the module name of a checkpoint tensor."""
    return _rename(name, RENAMINGS)


def to_checkpoint(name: str) -> str:
    """Return the checkpoint name of a module tensor; the inverse of `to_module`."""
    return _rename(name, _REVERSED)


def _rename(name: str, rules: list[tuple[str, str]]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name
