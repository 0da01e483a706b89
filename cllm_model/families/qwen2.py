"""Qwen2 and Qwen2.5: biases on query, key and value."""

from typing import Any

from torch import nn
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer, Qwen2RMSNorm, Qwen2RotaryEmbedding

from cllm_model.families.base import Family


def vllm_layer(vllm_config: Any, prefix: str) -> nn.Module:
    """Return vLLM's decoder layer."""
    from vllm.model_executor.models.qwen2 import Qwen2DecoderLayer

    config, quant = vllm_config.model_config.hf_config, vllm_config.quant_config
    return Qwen2DecoderLayer(config, vllm_config.cache_config, quant, prefix=prefix)


QWEN2 = Family(
    decoder_layer=Qwen2DecoderLayer,
    norm=Qwen2RMSNorm,
    rotary_embedding=Qwen2RotaryEmbedding,
    vllm_layer=vllm_layer,
    writes=frozenset({"use_sliding_window", "max_window_layers"}),
    omits=frozenset({"attention_bias"}),
    has_tensor="self_attn.q_proj.bias",
)
