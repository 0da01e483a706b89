"""The Control LLM architecture. Importing it registers the Hugging Face classes; it never imports vllm."""

from transformers import AutoConfig, AutoModelForCausalLM
from transformers.conversion_mapping import WeightRenaming, register_checkpoint_conversion_mapping

from cllm_model import names
from cllm_model.config import ControlLLMConfig, Expansion
from cllm_model.modeling import CausalLMExpansion, ControlLLMForCausalLM, ControlLLMModel
from cllm_model.published import PublishedConfig

__all__ = [
    "CausalLMExpansion",
    "ControlLLMConfig",
    "ControlLLMForCausalLM",
    "ControlLLMModel",
    "Expansion",
    "PublishedConfig",
]


def _register() -> None:
    for config, model in ((ControlLLMConfig, ControlLLMForCausalLM), (PublishedConfig, CausalLMExpansion)):
        AutoConfig.register(config.model_type, config)
        AutoModelForCausalLM.register(config, model)
        register_checkpoint_conversion_mapping(
            config.model_type,
            [WeightRenaming(*rule) for rule in names.RENAMINGS],
        )


_register()
