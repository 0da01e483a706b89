"""The format of the checkpoints published by the paper's authors (linkedin/ControlLLM): `causallmexpansion`.

Tensor names are those of our format; only config.json differs. It does not record the base family, which is inferred
from the config's own fields.
"""

from typing import Any, ClassVar

from cllm_model.config import ControlLLMConfig, Expansion, regular_layers
from cllm_model.modeling import ControlLLMForCausalLM

# What a fixed behaviour here corresponds to; another value means tensors or maths that are not built.
_FIXED = {"interpolation_norm_alpha": 0}


class PublishedConfig(ControlLLMConfig):
    """`ControlLLMConfig` read from the published form of `expansion`."""

    model_type = "causallmexpansion"
    architecture: ClassVar[str] = "CausalLMExpansion"

    def __post_init__(self, **kwargs: Any) -> None:
        self.base_model_type = infer_family(kwargs) if kwargs else "llama"
        super().__post_init__(**kwargs)
        self.use_cache = True  # the authors trained with it off and saved that; it says nothing about inference

    def _parse_expansion(self, values: dict[str, Any]) -> Expansion:
        for name, supported in _FIXED.items():
            if values.get(name, supported) != supported:
                raise ValueError(f"expansion.{name}: {values[name]!r} is not supported; allowed: {supported!r}")
        if values.get("interpolation_factor") is None:
            raise ValueError("expansion.interpolation_factor: null is not supported; allowed: a number")
        for name in ("num_ori_layers", "num_exp_layers", "expand_type", "merge_method"):
            if name not in values:
                raise ValueError(f"expansion.{name}: missing")
        return Expansion(
            expanded_layers=regular_layers(values["num_ori_layers"], values["num_exp_layers"]),
            merge_method=values["merge_method"],
            kind=values["expand_type"],
            interpolation_factor=values["interpolation_factor"],
        )


class CausalLMExpansion(ControlLLMForCausalLM):
    """`ControlLLMForCausalLM` under the published format's architecture name."""

    config: PublishedConfig
    config_class = PublishedConfig


def infer_family(fields: dict[str, Any]) -> str:
    """Return the base's model type, told by the config fields that only that family writes.

    Raises:
        ValueError: The fields fit none of the families that can be loaded.
    """
    if {"attention_bias", "mlp_bias"} <= set(fields):
        return "llama"
    raise ValueError(
        "the base family of this published checkpoint cannot be told from its config.json; "
        "known: llama (fields attention_bias and mlp_bias)"
    )
