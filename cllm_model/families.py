"""Base families: the Hugging Face classes that a dual-branch model of each family is built from.

A family is data, not code: everything that differs between families and matters here stands in its row.
"""

from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRMSNorm, LlamaRotaryEmbedding


@dataclass(frozen=True)
class Family:
    """The building blocks of one base family.

    Args:
        decoder_layer: Built with (config, layer_idx).
        norm: The final norm, built with (hidden_size, eps=…).
        rotary_embedding: Built with (config=…).
    """

    decoder_layer: type[Any]
    norm: type[nn.Module]
    rotary_embedding: type[nn.Module]


FAMILIES = {
    "llama": Family(LlamaDecoderLayer, LlamaRMSNorm, LlamaRotaryEmbedding),
}
"""Hugging Face model type -> family."""
