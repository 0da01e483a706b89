"""Qwen3, dense: norms on queries and keys."""

from typing import Any

from torch import nn
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer, Qwen3RMSNorm, Qwen3RotaryEmbedding

from cllm_model.families.base import Family


def vllm_layer(vllm_config: Any, prefix: str) -> nn.Module:
    """Return vLLM's decoder layer."""
    from vllm.model_executor.models.qwen3 import Qwen3DecoderLayer

    config, quant = vllm_config.model_config.hf_config, vllm_config.quant_config
    return Qwen3DecoderLayer(config, vllm_config.cache_config, quant, prefix=prefix)


QWEN3 = Family(
    decoder_layer=Qwen3DecoderLayer,
    norm=Qwen3RMSNorm,
    rotary_embedding=Qwen3RotaryEmbedding,
    vllm_layer=vllm_layer,
    writes=frozenset({"use_sliding_window", "max_window_layers", "attention_bias"}),
    has_tensor="self_attn.q_norm.weight",
)
