"""Between plain and expanded checkpoints: `expand` adds layers to a base, `extract` takes the base back out.

Works on files, tensor by tensor; no model is built.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedConfig

from cllm_model import checkpoint, names
from cllm_model.config import ControlLLMConfig, Expansion
from cllm_model.interpolators import build_interpolator
from cllm_model.placement import choose_sites, place
from cllm_model.relaxed_norm import DYNAMIC, RELAXED

PRETRAINED = "pretrained_layer"
EXPANDED = "expanded_layer"
ZEROED = ("self_attn.o_proj.", "mlp.down_proj.")
"""What a fresh stacked layer adds with; zeroed, so that it passes its input on."""


def expand(
    base: Path,
    out: Path,
    layers: int | Sequence[int],
    method: str,
    factor: float | None = 0.0,
    kind: str = "concat",
    freeze_factor: bool = False,
    norm_alpha: float = 0.0,
) -> ControlLLMConfig:
    """Write a checkpoint in which layers of a base carry, or are followed by, a fresh copy of themselves.

    Args:
        base: Directory of a plain checkpoint.
        out: Directory to write; must not exist.
        layers: Layers of the base to copy: their indices, or the number of evenly spaced ones.
        method: Merge method of dual-branch layers.
        factor: Initial logit of the interpolation weight.
        kind: One of `cllm_model.config.EXPANSIONS`.
        freeze_factor: Keep the factor from training.
        norm_alpha: Share of the input that the norms of expanded layers let through.

    Returns:
        The configuration that was written.

    Raises:
        ValueError: An argument or the base checkpoint is not valid; nothing is left behind.
    """
    base_config = checkpoint.check_base(base)
    expanded, stacked = place(kind, choose_sites(layers, base_config.num_hidden_layers))
    expansion = Expansion(expanded, method, kind, stacked, factor, freeze_factor, norm_alpha)
    config = ControlLLMConfig.from_base(base_config, expansion)
    with checkpoint.write_beside(out) as beside:
        checkpoint.write_tensors(beside, _expanded_tensors(base, config))
        checkpoint.copy_companions(base, beside)
        config.save_pretrained(beside)
    return config


def extract(model: Path, out: Path) -> PreTrainedConfig:
    """Write the base branch of an expanded checkpoint as a plain checkpoint of its family.

    Returns:
        The configuration that was written.

    Raises:
        ValueError: The checkpoint is not valid, or `out` exists; nothing is left behind.
    """
    config = checkpoint.check_expanded(model)
    base_config = config.base_config()
    with checkpoint.write_beside(out) as beside:
        checkpoint.write_tensors(beside, _base_tensors(model, config.dual))
        checkpoint.copy_companions(model, beside)
        base_config.save_pretrained(beside)
    return base_config


def _expanded_tensors(base: Path, config: ControlLLMConfig) -> Iterator[tuple[str, Tensor]]:
    dual = config.dual
    # base layer -> where it stands, and its copy, in the expanded model
    places = {dual.base_index(i): i for i in range(config.num_hidden_layers) if i not in dual.stacked_layers}
    dtype = torch.float32
    for name, tensor in checkpoint.read_tensors(base):
        dtype = tensor.dtype
        layer, rest = names.split_layer(name)
        if layer is None:
            yield name, tensor
            continue
        place = places[layer]
        if place in dual.expanded_layers:
            yield names.join_layer(place, f"{PRETRAINED}.{rest}"), tensor
            yield names.join_layer(place, f"{EXPANDED}.{rest}"), tensor.clone()
            continue
        yield names.join_layer(place, rest), tensor
        if place + 1 in dual.stacked_layers:
            copy = torch.zeros_like(tensor) if rest.startswith(ZEROED) else tensor.clone()
            yield names.join_layer(place + 1, rest), copy
    fresh = build_interpolator(dual.merge_method, config.hidden_size, dual.interpolation_factor).state_dict()
    for layer in dual.expanded_layers:
        for name, tensor in fresh.items():
            yield names.to_checkpoint(names.join_layer(layer, f"interpolator.{name}")), tensor.to(dtype, copy=True)
        if dual.norm_alpha == DYNAMIC:
            for norm in RELAXED:
                factor = torch.full((1,), dual.interpolation_factor, dtype=dtype)
                yield names.join_layer(layer, f"{EXPANDED}.{norm}.interpolation_factor"), factor


def _base_tensors(model: Path, expansion: Expansion) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in checkpoint.read_tensors(model):
        layer, rest = names.split_layer(name)
        if layer is None:
            yield name, tensor
        elif layer in expansion.expanded_layers:
            if rest.startswith(f"{PRETRAINED}."):
                yield names.join_layer(expansion.base_index(layer), rest.removeprefix(f"{PRETRAINED}.")), tensor
        elif layer not in expansion.stacked_layers:
            yield names.join_layer(expansion.base_index(layer), rest), tensor
