"""Mistral 7B and its successors of the same shape; a window of attention, where there is one, is every layer's."""

from typing import Any

from torch import nn
from transformers.models.mistral.modeling_mistral import MistralDecoderLayer, MistralRMSNorm, MistralRotaryEmbedding

from cllm_model.families.base import Family


def vllm_layer(vllm_config: Any, prefix: str) -> nn.Module:
    """Return vLLM's decoder layer: it runs Mistral's on its Llama layer, whose names fit two branches."""
    from vllm.model_executor.models.llama import LlamaDecoderLayer

    return LlamaDecoderLayer(vllm_config, prefix=prefix)


MISTRAL = Family(
    decoder_layer=MistralDecoderLayer,
    norm=MistralRMSNorm,
    rotary_embedding=MistralRotaryEmbedding,
    vllm_layer=vllm_layer,
    writes=frozenset({"sliding_window"}),
    omits=frozenset({"attention_bias", "use_sliding_window"}),
)
