"""Mistral 7B and its successors of the same shape; a window of attention, where there is one, is every layer's."""

from transformers.models.mistral.modeling_mistral import MistralDecoderLayer, MistralRMSNorm, MistralRotaryEmbedding

from cllm_model.families.base import Family
from cllm_model.families.llama import vllm_layer

MISTRAL = Family(
    decoder_layer=MistralDecoderLayer,
    norm=MistralRMSNorm,
    rotary_embedding=MistralRotaryEmbedding,
    vllm_layer=vllm_layer,  # vLLM runs Mistral's on its Llama layer, whose names fit two branches
    writes=frozenset({"sliding_window"}),
    omits=frozenset({"attention_bias", "use_sliding_window"}),
)
