"""What a base family is to this project: its building blocks, and how its checkpoints are recognised."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Family:
    """One base family; everything that differs between families stands in its file.

    Args:
        decoder_layer: Hugging Face's decoder layer, built with (config, layer_idx).
        norm: Hugging Face's final norm, built with (hidden_size, eps=…).
        rotary_embedding: Hugging Face's rotary embedding, built with (config=…).
        vllm_layer: Returns vLLM's decoder layer for (vllm_config, prefix=…); imports vllm when it is called.
        writes: Fields that config.json of this family always holds, in all transformers versions that wrote the
            published format, and that tell it from the other families together with `omits`.
        omits: Fields that only other families write.
        has_tensor: End of a tensor name by which to tell the family where the fields do not suffice.
    """

    decoder_layer: type[Any]
    norm: type[nn.Module]
    rotary_embedding: type[nn.Module]
    vllm_layer: Callable[..., nn.Module]
    writes: frozenset[str]
    omits: frozenset[str] = frozenset()
    has_tensor: str | None = None
