"""Two checkpoints of one expansion and one base merged: back to a plain checkpoint, or with the branches kept.

Works on files, tensor by tensor; no model is built. Symbols: p the base's tensor, a and b the two expanded ones, ta and
tb the weights that their factors stand for.
"""

import math
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import torch
from torch import Tensor
from transformers import CONFIG_MAPPING, PreTrainedConfig

from cllm_model import checkpoint
from cllm_model.config import ControlLLMConfig
from cllm_model.expand import base_name, copied_from
from cllm_model.folding import fold_linear, fold_spherical
from cllm_model.interpolators import Fold
from cllm_model.mean_weights import factor_name, factor_weights, has_one_weight
from cllm_model.merge import Merged, fold_back, fold_of, lost, with_weights
from cllm_model.names import split_layer
from cllm_model.published import PublishedConfig, from_published_config, merged_back_config, to_published
from cllm_model.tensors import CheckpointError, LazyTensor, lazy, lazy_map

FoldTwo = Callable[[Tensor, Tensor, Tensor, float, float], Tensor]

_NOT_COMPUTED = {"use_cache", "initializer_range", "attention_dropout", "pretraining_tp"}
"""Fields of a family that change nothing in what its models compute."""
_EPSILON = 2.0**-52


def fold_two_linear(p: Tensor, a: Tensor, b: Tensor, ta: float, tb: float) -> Tensor:
    """Return ``(1 - (ta + tb) / 2) * p + ta / 2 * a + tb / 2 * b`` in fp32."""
    return (1 - (ta + tb) / 2) * p.float() + ta / 2 * a.float() + tb / 2 * b.float()


def fold_two_spherical(p: Tensor, a: Tensor, b: Tensor, ta: float, tb: float) -> Tensor:
    """Return p moved by ta on the arc to a, then by tb on the arc to b, in fp32; the order matters."""
    return fold_spherical(fold_spherical(p, a, ta), b, tb)


FOLD_TWO: dict[Fold, FoldTwo] = {fold_linear: fold_two_linear, fold_spherical: fold_two_spherical}
"""How a merge method folds one expanded tensor -> how it folds two. Source: the authors' `merge_weights_dual`."""


def merge_two(model: Path, other: Path, out: Path, keep_branches: bool = False, family: str | None = None) -> Merged:
    """Write two expanded checkpoints of one base as one checkpoint.

    Args:
        model: Directory of the first checkpoint, a; the result has its format and companion files.
        other: Directory of the second one, b.
        out: Directory to write; must not exist.
        keep_branches: Write an expanded checkpoint, whose expanded branch is that of both models, in the ratio of
            their weights; else a plain one. Where the folds are linear, merging the former back gives the latter.
        family: The base's family, where the checkpoints do not tell it.

    Raises:
        ValueError: A checkpoint is not valid, the two differ in expansion, family or a tensor of the base, or the
            merge method cannot be folded.
    """
    config, a = checkpoint.open_expanded(model, family)
    other_config, b = checkpoint.open_expanded(other, family)
    fold = fold_of(config)
    _check_same_expansion(config, other_config)
    if out.exists():
        raise CheckpointError(f"{out}: exists already; name a new directory")
    _check_same_base(a, b, config, other)
    ta, tb = factor_weights(a, config), factor_weights(b, other_config)
    weights = {layer: (ta[layer] + tb[layer]) / 2 for layer in ta}
    written: PreTrainedConfig
    if keep_branches:
        written = _kept_config(config, other_config)
        merged = _keep(a, b, config, fold, ta, tb)
    else:
        written = merged_back_config(config)
        merged = fold_back([a, b], config.dual, FOLD_TWO[fold], {layer: (ta[layer], tb[layer]) for layer in ta})
    checkpoint.write_checkpoint(out, written, merged, source=model)
    return Merged(written, weights, {}, [] if keep_branches else lost(config))


def _check_same_expansion(config: ControlLLMConfig, other: ControlLLMConfig) -> None:
    a, b = config.dual, other.dual
    for field in fields(a):
        ours, theirs = getattr(a, field.name), getattr(b, field.name)
        differ = (ours is None) != (theirs is None) if field.name == "interpolation_factor" else ours != theirs
        if differ:
            raise ValueError(f"expansion.{field.name}: {ours!r} in one checkpoint and {theirs!r} in the other")
    if config.base_model_type != other.base_model_type:
        raise ValueError(f"base_model_type: {config.base_model_type!r} and {other.base_model_type!r}")
    common = {field.name for field in fields(PreTrainedConfig)} - {"tie_word_embeddings"}
    for field in fields(CONFIG_MAPPING[config.base_model_type]):
        ours, theirs = getattr(config, field.name, None), getattr(other, field.name, None)
        if field.name not in common | _NOT_COMPUTED and not field.name.endswith("token_id") and ours != theirs:
            raise ValueError(f"{field.name}: {ours!r} in one checkpoint and {theirs!r} in the other")


def _check_same_base(a: dict[str, LazyTensor], b: dict[str, LazyTensor], config: ControlLLMConfig, other: Path) -> None:
    for name, tensor in a.items():
        if tensor.dtype != b[name].dtype:
            raise CheckpointError(f"{other}: {name} is {b[name].dtype}, and {tensor.dtype} in the other checkpoint")
        if base_name(name, config.dual) is not None and not _same_bits(tensor.load(), b[name].load()):
            raise CheckpointError(f"{other}: {name} differs: the two checkpoints do not have one base")


def _same_bits(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))


def _keep(
    a: dict[str, LazyTensor],
    b: dict[str, LazyTensor],
    config: ControlLLMConfig,
    fold: Fold,
    ta: dict[int, float],
    tb: dict[int, float],
) -> dict[str, LazyTensor]:
    dual = config.dual
    factors = {name: layer for layer in dual.expanded_layers if (name := factor_name(config, layer)) is not None}
    kept = {}
    for name, tensor in a.items():
        layer, _ = split_layer(name)
        if base_name(name, dual) is not None:
            kept[name] = tensor
        elif copied_from(name, dual) is not None:
            assert layer is not None
            kept[name] = lazy_map(with_weights(fold, tb[layer] / (ta[layer] + tb[layer])), tensor, b[name])
        elif name in factors and has_one_weight(dual):
            assert layer is not None
            kept[name] = lazy(torch.tensor([_logit((ta[layer] + tb[layer]) / 2)]), tensor.dtype)
        else:  # of a gate, of the map of a divergence loss, of a relaxed norm
            kept[name] = lazy_map(_mean, tensor, b[name])
    return kept


def _mean(a: Tensor, b: Tensor) -> Tensor:
    return (a.float() + b.float()) / 2


def _logit(weight: float) -> float:
    inside = min(max(weight, _EPSILON), 1 - _EPSILON)  # a factor so large that its sigmoid is 1 stays finite
    return math.log(inside / (1 - inside))


def _kept_config(config: ControlLLMConfig, other: ControlLLMConfig) -> PreTrainedConfig:
    """Return the first model's configuration with an initial factor that stands for the mean of both weights."""
    a, b = config.dual.interpolation_factor, other.dual.interpolation_factor
    factor = a
    if a is not None and b is not None and a != b:
        factor = _logit((torch.tensor([a, b], dtype=torch.float64).sigmoid().sum() / 2).item())
    own = from_published_config(config) if isinstance(config, PublishedConfig) else config
    own.expansion = replace(config.dual, interpolation_factor=factor).to_dict()
    return to_published(own) if isinstance(config, PublishedConfig) else own
