"""Llama 2 and 3, with the rope scaling of 3.x."""

from typing import Any

from torch import nn
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRMSNorm, LlamaRotaryEmbedding

from cllm_model.families.base import Family


def vllm_layer(vllm_config: Any, prefix: str) -> nn.Module:
    """Return vLLM's decoder layer."""
    from vllm.model_executor.models.llama import LlamaDecoderLayer

    return LlamaDecoderLayer(vllm_config, prefix=prefix)


LLAMA = Family(
    decoder_layer=LlamaDecoderLayer,
    norm=LlamaRMSNorm,
    rotary_embedding=LlamaRotaryEmbedding,
    vllm_layer=vllm_layer,
    writes=frozenset({"attention_bias", "mlp_bias"}),
)
