"""The format of the checkpoints published by the paper's authors (linkedin/ControlLLM): `causallmexpansion`.

Tensor names are those of our format; only config.json differs. It does not record the base family, which is inferred,
and it lists the layers that are *not* new (`freezed_layers`, so spelled) instead of those that are. A stacked expansion
is published as a plain checkpoint of its family that holds an `expansion` too.
"""

import os
from pathlib import Path
from typing import Any, ClassVar

from transformers import PreTrainedConfig

from cllm_model.config import ControlLLMConfig, Expansion, plain_config
from cllm_model.families import FAMILIES, infer_family
from cllm_model.placement import place, regular_sites
from cllm_model.tensors import INDEX, SINGLE, read_headers


class PublishedConfig(ControlLLMConfig):
    """`ControlLLMConfig` read from the published form of `expansion`.

    Args:
        base_model_type: The base's Hugging Face model type; inferred from the other fields by default.
        expansion: The published fields.
        kwargs: The fields of the base family's configuration.
    """

    model_type = "causallmexpansion"
    architecture: ClassVar[str] = "CausalLMExpansion"

    base_model_type: str = ""

    def __post_init__(self, **kwargs: Any) -> None:
        if not self.base_model_type:
            self.base_model_type = infer_family(kwargs) if self.expansion else next(iter(FAMILIES))
        super().__post_init__(**kwargs)
        self.use_cache = True  # the authors trained with it off and saved that; it says nothing about inference

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the fields of a checkpoint's config.json, and the keywords that are left."""
        values, left = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        if is_published_stack(values):
            values = values | {"base_model_type": values["model_type"], "model_type": cls.model_type}
        return values, left | {"name_or_path": str(pretrained_model_name_or_path)}

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Return the configuration; the keyword `base_model_type` names the family where config.json does not."""
        values = dict(config_dict)
        named = kwargs.pop("base_model_type", None)
        if values.get("expansion"):
            directory = kwargs.get("name_or_path")
            values["base_model_type"] = base_family(values, Path(directory) if directory else None, named)
        return super().from_dict(values, **kwargs)

    def _parse_expansion(self, values: dict[str, Any]) -> Expansion:
        return from_published(values, self.num_hidden_layers)


def is_published_stack(values: dict[str, Any]) -> bool:
    """Tell whether a plain checkpoint's config.json is that of a stacked expansion, not merged back."""
    expansion = values.get("expansion")
    return (
        values.get("model_type") in FAMILIES
        and isinstance(expansion, dict)
        and expansion.get("expand_type") == "stack"
        and expansion.get("num_exp_layers", 0) > 0
    )


def base_family(values: dict[str, Any], directory: Path | None = None, named: str | None = None) -> str:
    """Return the base family of a published checkpoint.

    Args:
        values: The fields of its config.json.
        directory: Where its weights are, whose names help to tell the family; they may be elsewhere.
        named: The family that the user names; needed where nothing else tells it.

    Raises:
        ValueError: The family cannot be told, or is not the one that was named.
    """
    told = values["model_type"] if is_published_stack(values) else values.get("base_model_type")
    if not told:
        try:
            told = _infer(values, directory)
        except ValueError:
            if named is None:
                raise
            told = named
    if named not in (None, told):
        raise ValueError(f"base_model_type: {named!r} is named, but the checkpoint is of the family {told!r}")
    return told


def _infer(values: dict[str, Any], directory: Path | None) -> str:
    try:
        return infer_family(values)
    except ValueError:
        if directory is None or not any((directory / name).is_file() for name in (SINGLE, INDEX)):
            raise
        return infer_family(values, set(read_headers(directory)))


def from_published(values: dict[str, Any], num_layers: int) -> Expansion:
    """Return the expansion that the published fields describe.

    Args:
        values: The published `expansion`.
        num_layers: Layers of the expanded model.

    Raises:
        ValueError: A field is missing, or the fields contradict each other.
    """
    for name in ("num_ori_layers", "num_exp_layers", "expand_type", "merge_method", "interpolation_factor"):
        if name not in values:
            raise ValueError(f"expansion.{name}: missing")
    kind, frozen = values["expand_type"], values.get("freezed_layers")
    expanded: tuple[int, ...]
    stacked: tuple[int, ...]
    if frozen is None:
        expanded, stacked = place(kind, regular_sites(values["num_ori_layers"], values["num_exp_layers"]))
    else:
        new = tuple(i for i in range(num_layers) if i not in set(frozen))
        expanded, stacked = {"concat": (new, ()), "stack": ((), new)}.get(kind, (new[1::2], new[::2]))
    expansion = Expansion(
        expanded_layers=expanded,
        merge_method=values["merge_method"],
        kind=kind,
        stacked_layers=stacked,
        interpolation_factor=values["interpolation_factor"],
        freeze_factor=bool(values.get("freeze_interpolation_factor", False)),
        norm_alpha=values.get("interpolation_norm_alpha") or 0.0,
    )
    if num_layers != values["num_ori_layers"] + expansion.num_added:
        raise ValueError(
            f"expansion.num_ori_layers: {values['num_ori_layers']} and {expansion.num_added} stacked layers do not "
            f"make the {num_layers} layers that num_hidden_layers says"
        )
    return expansion


def published_fields(config: ControlLLMConfig) -> dict[str, Any]:
    """Return the published form of `expansion`; what that records of training has the authors' defaults."""
    expansion = config.dual
    return {
        "expand_type": expansion.kind,
        "merge_method": expansion.merge_method,
        "freezed_layers": sorted(
            set(range(config.num_hidden_layers)) - {*expansion.expanded_layers, *expansion.stacked_layers}
        ),
        "expanded_from": "",
        "num_ori_layers": config.num_hidden_layers - expansion.num_added,
        "num_exp_layers": len(expansion.expanded_layers) + len(expansion.stacked_layers),
        "interpolation_factor": expansion.interpolation_factor,
        "interpolation_loss_alpha": 0,
        "interpolation_loss_type": "cosine",
        "interpolation_norm_alpha": expansion.norm_alpha,
        "freeze_interpolation_factor": expansion.freeze_factor,
        "freeze_ori_layers": True,
        "freeze_ori_non_layers": True,
    }


def to_published(config: ControlLLMConfig) -> PreTrainedConfig:
    """Return the configuration in the published format.

    Raises:
        ValueError: The published format has no word for something that the expansion holds.
    """
    expansion, published = config.dual, published_fields(config)
    try:
        read_back = from_published(published, config.num_hidden_layers)
    except ValueError:
        read_back = None
    if read_back != expansion:
        raise ValueError("expansion: the published format cannot say where its layers are; it takes them in turn")
    fields = config.family_fields()
    if expansion.kind == "stack":
        return plain_config(config.base_model_type, fields | {"expansion": published})
    fields["architectures"] = [PublishedConfig.architecture]
    return PublishedConfig(**fields, base_model_type=config.base_model_type, expansion=published)


def merged_back_config(config: ControlLLMConfig) -> PreTrainedConfig:
    """Return the family's configuration of a model that was merged back: a negative `num_exp_layers` says so."""
    published = published_fields(config)
    plain = config.base_config()
    plain.expansion = published | {"num_exp_layers": -published["num_exp_layers"]}
    return plain


def from_published_config(config: PublishedConfig) -> ControlLLMConfig:
    """Return a published configuration in our own format."""
    fields = config.family_fields() | {"architectures": [ControlLLMConfig.architecture]}
    return ControlLLMConfig(**fields, base_model_type=config.base_model_type, expansion=config.dual.to_dict())
