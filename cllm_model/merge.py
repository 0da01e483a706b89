"""Merge back: the two branches of every layer folded into one, so that a plain checkpoint of the base family is left.

Works on files, tensor by tensor; no model is built. How a merge method folds weights is the interpolator's to say, see
`cllm_model.interpolators`; two checkpoints of one expansion are merged by `cllm_model.merge_two`.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor
from transformers import PreTrainedConfig

from cllm_model import checkpoint
from cllm_model.config import ControlLLMConfig, Expansion
from cllm_model.expand import base_part, copied_from
from cllm_model.interpolators import MERGE_METHODS, Fold
from cllm_model.mean_weights import factor_weights, has_one_weight, measured_weights
from cllm_model.names import split_layer
from cllm_model.published import merged_back_config
from cllm_model.relaxed_norm import DYNAMIC
from cllm_model.report import report_of
from cllm_model.tensors import LazyTensor, lazy_map

logger = logging.getLogger(__name__)

UNFOLDABLE = {
    "moe": "each token chooses one of the two branches, and no one set of weights stands for a choice",
    "prog": "a lateral connection stands between the branches, and a plain layer has no place for it",
}
"""Merge method without a fold -> why."""


class Merged(NamedTuple):
    """What a merge wrote.

    Attributes:
        config: The configuration that was written.
        weights: Layer of the expanded model -> share of the expanded branch, or of the stacked layer.
        measured: Those of `weights` that were measured; the others follow from the factors.
        lost: What the merged checkpoint no longer has, in sentences.
    """

    config: PreTrainedConfig
    weights: dict[int, float]
    measured: dict[int, float]
    lost: list[str]


def merge(model: Path, out: Path, weights_from: Path | None = None, family: str | None = None) -> Merged:
    """Write an expanded checkpoint as a plain one of its family, with the branches folded together.

    Args:
        model: Directory of an expanded checkpoint.
        out: Directory to write; must not exist.
        weights_from: File of measured mean weights, see `measured_weights`; by default, and for layers that it does
            not list, the weight that the layer's factor stands for.
        family: The base's family, where the checkpoint does not tell it.

    Raises:
        ValueError: The checkpoint or the file is not valid, or the merge method cannot be folded.
    """
    config, tensors = checkpoint.open_expanded(model, family)
    dual = config.dual
    fold = fold_of(config)
    if weights_from is not None and not dual.expanded_layers:
        raise ValueError("weights_from: not allowed with expansion 'stack', which has no dual-branch layer")
    measured = {} if weights_from is None else _measured(weights_from, model, config)
    weights = factor_weights(tensors, config) | measured
    merged = fold_back([tensors], dual, fold, {layer: (weight,) for layer, weight in weights.items()})
    written = merged_back_config(config)
    checkpoint.write_checkpoint(out, written, merged, source=model)
    return Merged(written, weights, measured, lost(config))


def fold_back(
    models: Sequence[Mapping[str, LazyTensor]],
    expansion: Expansion,
    fold: Callable[..., Tensor],
    weights: Mapping[int, tuple[float, ...]],
) -> dict[str, LazyTensor]:
    """Return the base's tensors, with what the models' expansions copied from them folded in.

    Args:
        models: Tensors of one expanded model, or of several of one expansion and base.
        expansion: Their expansion.
        fold: Folds the base's tensor, that of each model and the weight of each model.
        weights: Layer -> weight of each model.
    """
    merged = base_part(models[0], expansion)
    for name in models[0]:
        if (base := copied_from(name, expansion)) is not None:
            layer, _ = split_layer(name)
            assert layer is not None
            merged[base] = lazy_map(
                with_weights(fold, *weights[layer]), merged[base], *(model[name] for model in models)
            )
    return merged


def with_weights(fold: Callable[..., Tensor], *weights: float) -> Callable[..., Tensor]:
    """Return a fold as a function of the tensors alone."""
    return lambda *tensors: fold(*tensors, *weights)


def _measured(file: Path, model: Path, config: ControlLLMConfig) -> dict[int, float]:
    measured = measured_weights(file, config.dual)
    told = checkpoint.read_json(file).get("checkpoint")
    if told is not None and told != (found := checkpoint.checkpoint_hash(model)):
        logger.warning("%s was measured on checkpoint %s, and %s is %s", file, told, model, found)
    return measured


def fold_of(config: ControlLLMConfig) -> Fold:
    """Return how a model's merge method folds weights.

    Raises:
        ValueError: It cannot.
    """
    method = config.dual.merge_method
    fold = MERGE_METHODS[method].fold
    if fold is None:
        raise ValueError(f"merge_method: {method!r} cannot be merged back: {UNFOLDABLE[method]}")
    return fold


def lost(config: ControlLLMConfig) -> list[str]:
    """Return what a merged-back checkpoint no longer has, in sentences."""
    dual = config.dual
    found = ["the control scale: one set of weights is left, and the base model is not among it"]
    if dual.expanded_layers:
        layers = ", ".join(map(str, dual.expanded_layers))
        if not has_one_weight(dual):
            found.append(f"the weight of each token in layers {layers}: each layer has one constant now")
        found.append(f"the two branches of layers {layers}: outputs were interpolated, now weights are, which differs")
    if dual.stacked_layers:
        layers = ", ".join(map(str, dual.stacked_layers))
        found.append(f"the depth: layers {layers} are folded into the layers that they were copied from")
    if dual.expanded_layers and dual.norm_alpha != 0:
        share = "a learned share" if dual.norm_alpha == DYNAMIC else f"{dual.norm_alpha:g}"
        found.append(f"the relaxed norm of the expanded branches ({share} of the input): plain layers have none")
    return found


def scores(model: Path) -> list[str]:
    """Return what the report beside a checkpoint measured of each skill, in lines; none without a report."""
    report = report_of(model) or {}
    return [
        f"{skill['name']} ({skill['kind']}): base {skill['scores']['base']:.3f}, "
        f"as trained {skill['scores']['control']:.3f}"
        for skill in report.get("skills", [])
    ]
