"""Configuration of a Control LLM model: a base family's own fields, plus what was expanded and how it is merged.

Two model types share one meaning: ``control_llm`` is ours and records the base family; ``causallmexpansion`` is the
format of the checkpoints published by the paper's authors, see `cllm_model.published`. Knows no tensors.
"""

from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

from transformers import CONFIG_MAPPING, PreTrainedConfig

from cllm_model.families import FAMILIES
from cllm_model.interpolators import MERGE_METHODS

EXPANSIONS = ("concat",)
BRANCHES = ("full",)


@dataclass(frozen=True)
class Expansion:
    """Which layers have two branches, and how their outputs are merged.

    Args:
        expanded_layers: Indices of the dual-branch layers, ascending.
        merge_method: One of `MERGE_METHODS`.
        kind: One of `EXPANSIONS`; `concat` keeps the number of layers.
        interpolation_factor: Initial logit of the interpolation weight.
        branch: What an expanded layer holds; one of `BRANCHES`, `full` is a copy of the whole layer.
    """

    expanded_layers: tuple[int, ...]
    merge_method: str
    kind: str = "concat"
    interpolation_factor: float = 0.0
    branch: str = "full"

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("merge_method", self.merge_method, MERGE_METHODS),
            ("kind", self.kind, EXPANSIONS),
            ("branch", self.branch, BRANCHES),
        ):
            if value not in choices:
                raise ValueError(f"expansion.{name}: {value!r} is not one of {', '.join(choices)}")
        layers = tuple(self.expanded_layers)
        if not layers or list(layers) != sorted(set(layers)) or layers[0] < 0:
            raise ValueError(f"expansion.expanded_layers: {list(layers)} is not an ascending list of layer indices")
        object.__setattr__(self, "expanded_layers", layers)

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
        return asdict(self) | {"expanded_layers": list(self.expanded_layers)}


def regular_layers(num_layers: int, num_expanded: int) -> tuple[int, ...]:
    """Return the evenly spaced layers of the published rule: i is expanded iff ``(i + 1) % (L // n) == 0``.

    Raises:
        ValueError: The rule would not give exactly `num_expanded` layers.
    """
    divisors = [n for n in range(1, num_layers + 1) if num_layers % n == 0]
    if num_expanded not in divisors:
        raise ValueError(
            f"layers: {num_expanded} does not divide the base's {num_layers} layers; "
            f"allowed: {', '.join(map(str, divisors))}"
        )
    stride = num_layers // num_expanded
    return tuple(range(stride - 1, num_layers, stride))


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
        if self.base_model_type not in FAMILIES:
            raise ValueError(f"base_model_type: {self.base_model_type!r} is not one of {', '.join(FAMILIES)}")
        # The base's own class fills in its defaults and brings older spellings (rope_theta, …) up to date.
        base = CONFIG_MAPPING[self.base_model_type](**kwargs)
        own = {field.name for field in fields(self)}
        super().__post_init__(**kwargs)
        for name, value in vars(base).items():
            if name not in own and not name.startswith("_"):
                setattr(self, name, value)

    @property
    def dual(self) -> Expansion:
        """The expansion, checked.

        Raises:
            ValueError: `expansion` is missing or not valid, or names a layer that the model does not have.
        """
        if self.expansion is None:
            raise ValueError("expansion: missing; a Control LLM config says which layers are expanded")
        expansion = self._parse_expansion(self.expansion)
        if expansion.expanded_layers[-1] >= self.num_hidden_layers:
            raise ValueError(
                f"expansion.expanded_layers: {expansion.expanded_layers[-1]} is out of range; "
                f"the model has layers 0 to {self.num_hidden_layers - 1}"
            )
        return expansion

    def _parse_expansion(self, values: dict[str, Any]) -> Expansion:
        return Expansion.from_dict(values)

    def base_config(self) -> PreTrainedConfig:
        """Return the plain configuration of the base model, without the expansion."""
        values = self.to_dict()
        for name in ("model_type", "base_model_type", "expansion", "architectures", "transformers_version"):
            values.pop(name, None)
        return CONFIG_MAPPING[self.base_model_type](**values)

    def to_diff_dict(self) -> dict[str, Any]:
        """Return what `config.json` holds: every family field, for a default of one family is wrong for another."""
        common = {field.name for field in fields(PreTrainedConfig)}
        family = {field.name for field in fields(CONFIG_MAPPING[self.base_model_type])} - common
        values = self.to_dict()
        own = {"base_model_type": self.base_model_type, "expansion": self.expansion}
        return super().to_diff_dict() | {name: values[name] for name in sorted(family)} | own
