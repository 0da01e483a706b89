"""Configuration of a Control LLM model: a base family's own fields, plus what was expanded and how it is merged.

Two model types share one meaning: ``control_llm`` is ours and records the base family; ``causallmexpansion`` is the
format of the checkpoints published by the paper's authors, see `cllm_model.published`. Knows no tensors.
"""

from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

from transformers import CONFIG_MAPPING, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from cllm_model.families import FAMILIES
from cllm_model.interpolators import check_method
from cllm_model.relaxed_norm import DYNAMIC

EXPANSIONS = ("concat", "stack", "hybrid")
BRANCHES = ("full",)
_OWN_FIELDS = ("base_model_type", "expansion")


@dataclass(frozen=True)
class Expansion:
    """Which layers were added to a base model, and how the outputs of two branches are merged.

    Layers are counted in the expanded model. A stacked layer is a layer of its own that stands directly behind the one
    it was copied from; a dual-branch layer holds its copy inside.

    Args:
        expanded_layers: Indices of the dual-branch layers, ascending.
        merge_method: One of `cllm_model.interpolators.MERGE_METHODS`.
        kind: One of `EXPANSIONS`: dual-branch layers only, stacked layers only, or both.
        stacked_layers: Indices of the stacked layers, ascending.
        interpolation_factor: Initial logit of the interpolation weight; None for the expanded branch alone (lerp only).
        freeze_factor: The factor keeps its initial value in training.
        norm_alpha: Share of the input that the norms of the expanded branch let through, see `relaxed_norm`.
        branch: What an expanded layer holds; one of `BRANCHES`, `full` is a copy of the whole layer.
    """

    expanded_layers: tuple[int, ...]
    merge_method: str
    kind: str = "concat"
    stacked_layers: tuple[int, ...] = ()
    interpolation_factor: float | None = 0.0
    freeze_factor: bool = False
    norm_alpha: float = 0.0
    branch: str = "full"

    def __post_init__(self) -> None:
        for name, value, choices in (("kind", self.kind, EXPANSIONS), ("branch", self.branch, BRANCHES)):
            if value not in choices:
                raise ValueError(f"expansion.{name}: {value!r} is not one of {', '.join(choices)}")
        check_method(self.merge_method, self.interpolation_factor)
        if not (0 <= self.norm_alpha <= 1 or self.norm_alpha == DYNAMIC):
            raise ValueError(
                f"expansion.norm_alpha: {self.norm_alpha} is not allowed; a number from 0 to 1, or {DYNAMIC:g}"
            )
        if self.norm_alpha == DYNAMIC and self.interpolation_factor is None:
            raise ValueError(f"expansion.interpolation_factor: null is not allowed with a norm_alpha of {DYNAMIC:g}")
        for name, needed in (("expanded_layers", self.kind != "stack"), ("stacked_layers", self.kind != "concat")):
            layers = tuple(getattr(self, name))
            if list(layers) != sorted(set(layers)) or (layers and layers[0] < 0):
                raise ValueError(f"expansion.{name}: {list(layers)} is not an ascending list of layer indices")
            if bool(layers) != needed:
                raise ValueError(
                    f"expansion.{name}: {list(layers)} does not go with kind {self.kind!r}, which has "
                    f"{'some' if needed else 'none'}"
                )
            object.__setattr__(self, name, layers)
        added = {*self.stacked_layers, *(i - 1 for i in self.stacked_layers)}
        if clash := sorted(added & set(self.expanded_layers)) or [i for i in self.stacked_layers if i == 0]:
            raise ValueError(f"expansion.stacked_layers: layer {clash[0]} cannot be stacked, or copied for stacking")

    @property
    def num_added(self) -> int:
        """Number of layers that the expanded model has beyond its base's."""
        return len(self.stacked_layers)

    @property
    def first_layer(self) -> int:
        """Index of the lowest layer that is dual-branch or stacked; what enters it is the base's, at every scale."""
        return min((*self.expanded_layers, *self.stacked_layers))

    def base_index(self, layer: int) -> int:
        """Return the base's index of a layer; for a stacked layer, that of the layer it was copied from."""
        return layer - sum(stacked <= layer for stacked in self.stacked_layers)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Expansion":
        """Return the expansion that `config.json` describes.

        Raises:
            ValueError: A field is unknown or missing, or a value is not one of its choices.
        """
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"expansion.{unknown[0]}: unknown field; allowed: {', '.join(sorted(known))}")
        if missing := sorted({"expanded_layers", "merge_method"} - set(values)):
            raise ValueError(f"expansion.{missing[0]}: missing")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return the form that `config.json` keeps."""
        return asdict(self) | {
            "expanded_layers": list(self.expanded_layers),
            "stacked_layers": list(self.stacked_layers),
        }


def plain_config(model_type: str, fields: dict[str, Any]) -> PreTrainedConfig:
    """Return the configuration of a plain causal language model of a family."""
    architecture = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model_type]
    return CONFIG_MAPPING[model_type](**fields | {"architectures": [architecture]})


def _family_fields(config: PreTrainedConfig) -> dict[str, Any]:
    """Return a configuration's fields without those that say which class it is, or that belong to an expansion."""
    not_family = {*_OWN_FIELDS, "model_type", "architectures", "transformers_version"}
    return {name: value for name, value in config.to_dict().items() if name not in not_family}


class ControlLLMConfig(PreTrainedConfig):
    """The base family's configuration, flat, with `base_model_type` and `expansion` added.

    Args:
        base_model_type: The base's Hugging Face model type, one of `FAMILIES`.
        expansion: The fields of `Expansion`.
        kwargs: The fields of the base family's configuration.
    """

    model_type = "control_llm"
    architecture: ClassVar[str] = "ControlLLMForCausalLM"
    keys_to_ignore_at_inference = ["past_key_values"]

    base_model_type: str = "llama"
    expansion: dict[str, Any] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        if kwargs.get("auto_map"):
            raise ValueError("auto_map: not allowed; code from a checkpoint is never run")
        if self.base_model_type not in FAMILIES:
            raise ValueError(f"base_model_type: {self.base_model_type!r} is not one of {', '.join(FAMILIES)}")
        # The base's own class fills in its defaults and brings older spellings (rope_theta, rope_scaling) up to date.
        base = CONFIG_MAPPING[self.base_model_type](**kwargs)
        own = {field.name for field in fields(self)}
        family = {name: value for name, value in vars(base).items() if name not in own and not name.startswith("_")}
        for name, value in family.items():
            setattr(self, name, value)
        super().__post_init__(**{name: value for name, value in kwargs.items() if name not in family})

    @property
    def dual(self) -> Expansion:
        """The expansion, checked.

        Raises:
            ValueError: `expansion` is missing or not valid, or names a layer that the model does not have.
        """
        if self.expansion is None:
            raise ValueError("expansion: missing; a Control LLM config says which layers are expanded")
        expansion = self._parse_expansion(self.expansion)
        last = max((*expansion.expanded_layers, *expansion.stacked_layers))
        if last >= self.num_hidden_layers:
            raise ValueError(
                f"expansion: layer {last} is out of range; the model has layers 0 to {self.num_hidden_layers - 1}"
            )
        return expansion

    def _parse_expansion(self, values: dict[str, Any]) -> Expansion:
        return Expansion.from_dict(values)

    def family_fields(self) -> dict[str, Any]:
        """Return the fields of the base family, with the values of the expanded model."""
        return _family_fields(self)

    def base_config(self) -> PreTrainedConfig:
        """Return the plain configuration of the base model, without the expansion and its stacked layers."""
        values = self.family_fields()
        stacked = set(self.dual.stacked_layers)
        values["num_hidden_layers"] -= len(stacked)
        if values.get("layer_types"):
            values["layer_types"] = [kind for i, kind in enumerate(values["layer_types"]) if i not in stacked]
        return plain_config(self.base_model_type, values)

    def kv_elements(self) -> tuple[int, int]:
        """Return how many numbers a token leaves in the caches of the base model, and of this one."""
        head_dim = getattr(self, "head_dim", None) or self.hidden_size // self.num_attention_heads
        layer = 2 * self.num_key_value_heads * head_dim  # a key and a value
        dual = self.dual
        base = layer * (self.num_hidden_layers - dual.num_added)
        return base, layer * (self.num_hidden_layers + len(dual.expanded_layers))

    @classmethod
    def from_base(cls, base: PreTrainedConfig, expansion: Expansion) -> "ControlLLMConfig":
        """Return the configuration of a base model that was expanded; the inverse of `base_config`."""
        values = _family_fields(base)
        layers = values["num_hidden_layers"] + expansion.num_added
        if values.get("layer_types"):
            values["layer_types"] = [values["layer_types"][expansion.base_index(i)] for i in range(layers)]
        values |= {"num_hidden_layers": layers, "architectures": [cls.architecture]}
        return cls(**values, base_model_type=base.model_type, expansion=expansion.to_dict())

    def to_diff_dict(self) -> dict[str, Any]:
        """Return what `config.json` holds: every family field, for a default of one family is wrong for another."""
        common = {field.name for field in fields(PreTrainedConfig)}
        family = {field.name for field in fields(CONFIG_MAPPING[self.base_model_type])} - common
        values = self.to_dict()
        own = {"base_model_type": self.base_model_type, "expansion": self.expansion}
        return super().to_diff_dict() | {name: values[name] for name in sorted(family)} | own
