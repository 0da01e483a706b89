"""Base families that a dual-branch model can be built from, one file each."""

from collections.abc import Collection

from cllm_model.families.base import Family
from cllm_model.families.llama import LLAMA
from cllm_model.families.mistral import MISTRAL
from cllm_model.families.qwen2 import QWEN2
from cllm_model.families.qwen3 import QWEN3

__all__ = ["FAMILIES", "Family", "infer_family"]

FAMILIES: dict[str, Family] = {"llama": LLAMA, "mistral": MISTRAL, "qwen2": QWEN2, "qwen3": QWEN3}
"""Hugging Face model type -> family."""


def infer_family(fields: Collection[str], tensors: Collection[str] = ()) -> str:
    """Return the model type of a checkpoint whose config.json does not name it.

    Args:
        fields: Names of the fields that config.json holds.
        tensors: Names of the tensors, which decide where the fields do not.

    Raises:
        ValueError: They fit none of the families, or more than one.
    """
    present = set(fields)
    for name, family in FAMILIES.items():
        if family.writes <= present and not family.omits & present:
            return name
    for name, family in FAMILIES.items():
        if family.has_tensor is not None and any(tensor.endswith(family.has_tensor) for tensor in tensors):
            return name
    raise ValueError(
        "base_model_type: the base family cannot be told from the fields of config.json; "
        f"name it there, or with --family; allowed: {', '.join(FAMILIES)}"
    )
