"""The mean interpolation weight of each layer that an expansion added: what its factor stands for, or was measured.

Layers are counted in the expanded model.
"""

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from cllm_model import names
from cllm_model.checkpoint import read_json
from cllm_model.config import ControlLLMConfig, Expansion
from cllm_model.interpolators import MERGE_METHODS, Lerp, build_interpolator
from cllm_model.report import REPORT, report_of
from cllm_model.tensors import LazyTensor

logger = logging.getLogger(__name__)
AUTHORS_KEY = "eval_avg_interp_weights"


def has_one_weight(expansion: Expansion) -> bool:
    """Tell whether a dual-branch layer has one weight for all tokens, which its factor holds alone."""
    return issubclass(MERGE_METHODS[expansion.merge_method], Lerp)


def factor_name(config: ControlLLMConfig, layer: int) -> str | None:
    """Return the name of the tensor that holds a dual-branch layer's interpolation factor; None for a null factor."""
    with torch.device("meta"):
        interpolator = build_interpolator(
            config.dual.merge_method, config.hidden_size, config.dual.interpolation_factor
        )
    factor = interpolator.factor_parameter()
    for name, parameter in interpolator.named_parameters():
        if parameter is factor:
            return names.to_checkpoint(names.join_layer(layer, f"interpolator.{name}"))
    return None


def factor_weights(tensors: Mapping[str, LazyTensor], config: ControlLLMConfig) -> dict[int, float]:
    """Return the weights that the factors stand for: sigmoid(factor), or of a gate's bias; 1 for a null factor.

    A stacked layer has no factor of its own; the configuration's stands for it, as in the authors' code.
    """
    weights = dict.fromkeys(config.dual.stacked_layers, _sigmoid(config.dual.interpolation_factor))
    for layer in config.dual.expanded_layers:
        name = factor_name(config, layer)
        weights[layer] = _sigmoid(None if name is None else tensors[name].load().float().item())
    return weights


def _sigmoid(factor: float | None) -> float:
    return 1.0 if factor is None else torch.sigmoid(torch.tensor(factor, dtype=torch.float64)).item()


def measured_weights(file: Path, expansion: Expansion) -> dict[int, float]:
    """Return the mean weights of dual-branch layers that a file records; a layer that it does not list is absent.

    The file is our `report.json`, or the authors' `evaluation_results.json`. A report has a mean weight on text of the
    new skill and one on text of the original skills; merged weights have to serve both, so they are given half each.

    Raises:
        ValueError: The file is neither, lists a layer that has no two branches, or a weight that is not in [0, 1].
    """
    return _listed_weights(read_json(file), file, expansion)


def _listed_weights(values: dict[str, Any], file: Path, expansion: Expansion) -> dict[int, float]:
    listed: list[tuple[int, list[Any]]]
    try:
        if AUTHORS_KEY in values:
            listed = [(int(str(key).removeprefix("layer_")), [value]) for key, value in values[AUTHORS_KEY].items()]
        else:
            layers = values["training"]["layers"]
            listed = [(entry["layer"], [entry["weight_new"], entry["weight_originals"]]) for entry in layers]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{file}: no weights found; allowed: a report.json with training.layers, or an evaluation_results.json "
            f'with {AUTHORS_KEY}: {{"layer_1": 0.35, …}} ({error!r})'
        ) from error
    if not listed:
        raise ValueError(f"{file}: lists no layer")
    measured = {}
    for layer, weights in listed:
        if layer not in expansion.expanded_layers:
            known = ", ".join(map(str, expansion.expanded_layers)) or "none"
            raise ValueError(f"{file}: layer {layer!r} has no two branches; the model's dual-branch layers: {known}")
        for weight in weights:
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight <= 1:
                raise ValueError(f"{file}: layer {layer}: {weight!r} is not a number from 0 to 1")
        measured[layer] = math.fsum(weights) / len(weights)
    return measured


def measured_weights_of(model: Path, expansion: Expansion) -> dict[int, float]:
    """Return the mean weights that the report in or beside a checkpoint's directory measured; none without one.

    They are shown only: a report that does not list them, or not as they should be, is left out with a warning.
    """
    report = report_of(model)
    try:
        return {} if report is None else _listed_weights(report, model / REPORT, expansion)
    except ValueError as error:
        logger.warning("%s: left out", error)
        return {}
