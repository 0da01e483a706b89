"""How vLLM gets to know that a published stacked checkpoint is an expansion, so that it is served with the dial.

Such a checkpoint calls itself a plain model of its family (`cllm_model.published`), and vLLM would run it as one: at
full strength whatever scale is asked for.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from cllm_model.checkpoint import CONTROL_LLM_TYPES, read_config
from cllm_model.families import FAMILIES
from cllm_model.published import PublishedConfig, is_published_stack


def hf_overrides(model: Path) -> dict[str, Any] | Callable[[PreTrainedConfig], PreTrainedConfig]:
    """Return vLLM's option `hf_overrides` for a checkpoint: nothing to override unless it is a published stack.

    Raises:
        ValueError: The directory does not hold an expanded checkpoint, or a plain one of a base family.
    """
    config = read_config(model, (*CONTROL_LLM_TYPES, *FAMILIES))
    return as_expansion if isinstance(config, PublishedConfig) and config.dual.kind == "stack" else {}


def as_expansion(config: PreTrainedConfig) -> PreTrainedConfig:
    """Return the configuration of a published stack as that of an expansion; any other as it is."""
    values = config.to_dict()
    if not is_published_stack(values):
        return config
    named = {"model_type": PublishedConfig.model_type, "architectures": [PublishedConfig.architecture]}
    return PublishedConfig.from_dict({**values, **named, "base_model_type": config.model_type})
