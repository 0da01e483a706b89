"""Between plain and expanded checkpoints: `expand` adds layers to a base, `extract` takes the base back out.

Works on files, tensor by tensor; no model is built.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedConfig

from cllm_model import checkpoint, names
from cllm_model.config import ControlLLMConfig, Expansion
from cllm_model.interpolators import build_interpolator
from cllm_model.placement import choose_sites, place
from cllm_model.relaxed_norm import DYNAMIC, RELAXED
from cllm_model.tensors import DTYPES, LazyTensor, lazy, lazy_map

PRETRAINED = "pretrained_layer"
EXPANDED = "expanded_layer"
ZEROED = ("self_attn.o_proj.", "mlp.down_proj.")
"""What a fresh stacked layer adds with; zeroed, so that it passes its input on."""
_RELAXED_FACTORS = tuple(f"{norm}.interpolation_factor" for norm in RELAXED)


def expand(
    base: Path,
    out: Path,
    layers: int | Sequence[int],
    method: str,
    factor: float | None = 0.0,
    kind: str = "concat",
    freeze_factor: bool = False,
    norm_alpha: float = 0.0,
    family: str | None = None,
) -> ControlLLMConfig:
    """Write a checkpoint in which layers of a base carry, or are followed by, a fresh copy of themselves.

    Args:
        base: Directory of a plain checkpoint; one that was merged back is a base like any other.
        out: Directory to write; must not exist.
        layers: Layers of the base to copy: their indices, or the number of evenly spaced ones.
        method: Merge method of dual-branch layers, and by which stacked layers are merged back.
        factor: Initial logit of the interpolation weight.
        kind: One of `cllm_model.config.EXPANSIONS`.
        freeze_factor: Keep the factor from training.
        norm_alpha: Share of the input that the norms of expanded layers let through.
        family: The base's family, where its config.json does not name it.

    Returns:
        The configuration that was written.

    Raises:
        ValueError: An argument or the base checkpoint is not valid; nothing is left behind.
    """
    if kind == "stack" and (norm_alpha or freeze_factor):
        given = "norm_alpha" if norm_alpha else "freeze_factor"
        raise ValueError(f"{given}: not allowed with expansion 'stack', which has no dual-branch layer")
    base_config, base_tensors = checkpoint.open_base(base, family)
    expanded, stacked = place(kind, choose_sites(layers, base_config.num_hidden_layers))
    expansion = Expansion(expanded, method, kind, stacked, factor, freeze_factor, norm_alpha)
    config = ControlLLMConfig.from_base(base_config, expansion)
    checkpoint.write_checkpoint(out, config, _expanded_tensors(base_tensors, config), source=base)
    return config


def extract(model: Path, out: Path, family: str | None = None) -> PreTrainedConfig:
    """Write the base branch of an expanded checkpoint as a plain checkpoint of its family.

    Returns:
        The configuration that was written.

    Raises:
        ValueError: The checkpoint is not valid, or `out` exists; nothing is left behind.
    """
    config, tensors = checkpoint.open_expanded(model, family)
    base_config = config.base_config()
    checkpoint.write_checkpoint(out, base_config, base_part(tensors, config.dual), source=model)
    return base_config


def base_part(tensors: Mapping[str, LazyTensor], expansion: Expansion) -> dict[str, LazyTensor]:
    """Return the tensors of the base model inside an expanded one, under the names that the base gives them."""
    return {base: tensors[name] for name in tensors if (base := base_name(name, expansion)) is not None}


def base_name(name: str, expansion: Expansion) -> str | None:
    """Return the name that a tensor of an expanded model has in its base; None for one that the expansion added."""
    layer, rest = names.split_layer(name)
    if layer is None:
        return name
    if layer in expansion.stacked_layers:
        return None
    if layer in expansion.expanded_layers:
        branch, _, rest = rest.partition(".")
        if branch != PRETRAINED:
            return None
    return names.join_layer(expansion.base_index(layer), rest)


def copied_from(name: str, expansion: Expansion) -> str | None:
    """Return the name of the base's tensor that an expansion copied to make this one; None for one it did not copy.

    What only the expanded model has is not copied: an interpolator's tensors, a relaxed norm's factor.
    """
    layer, rest = names.split_layer(name)
    if layer in expansion.expanded_layers:
        branch, _, rest = rest.partition(".")
        if branch != EXPANDED or rest in _RELAXED_FACTORS:
            return None
    elif layer not in expansion.stacked_layers:
        return None
    assert layer is not None
    return names.join_layer(expansion.base_index(layer), rest)


def _expanded_tensors(base: Mapping[str, LazyTensor], config: ControlLLMConfig) -> dict[str, LazyTensor]:
    dual = config.dual
    # base layer -> where it stands, and its copy, in the expanded model
    places = {dual.base_index(i): i for i in range(config.num_hidden_layers) if i not in dual.stacked_layers}
    expanded: dict[str, LazyTensor] = {}
    for name, tensor in base.items():
        layer, rest = names.split_layer(name)
        if layer is None:
            expanded[name] = tensor
            continue
        place = places[layer]
        if place in dual.expanded_layers:
            expanded[names.join_layer(place, f"{PRETRAINED}.{rest}")] = tensor
            expanded[names.join_layer(place, f"{EXPANDED}.{rest}")] = tensor
            continue
        expanded[names.join_layer(place, rest)] = tensor
        if place + 1 in dual.stacked_layers:
            copy = lazy_map(torch.zeros_like, tensor) if rest.startswith(ZEROED) else tensor
            expanded[names.join_layer(place + 1, rest)] = copy
    dtype = next(iter(base.values())).dtype
    for layer in dual.expanded_layers:
        for name, tensor in _fresh_interpolator(config, layer, dtype).items():
            expanded[names.to_checkpoint(names.join_layer(layer, f"interpolator.{name}"))] = tensor
        if dual.norm_alpha == DYNAMIC:
            assert dual.interpolation_factor is not None
            for rest in _RELAXED_FACTORS:
                factor = torch.full((1,), dual.interpolation_factor)
                expanded[names.join_layer(layer, f"{EXPANDED}.{rest}")] = lazy(factor, dtype)
    return expanded


def _fresh_interpolator(config: ControlLLMConfig, layer: int, dtype: str) -> dict[str, LazyTensor]:
    """Return a fresh interpolator's tensors; what is random in them follows from the layer alone."""
    method, factor = config.dual.merge_method, config.dual.interpolation_factor

    def build() -> dict[str, Tensor]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(layer)
            return build_interpolator(method, config.hidden_size, factor).state_dict()

    with torch.device("meta"):
        described = build_interpolator(method, config.hidden_size, factor).state_dict()
    return {
        name: LazyTensor(tuple(tensor.shape), dtype, lambda name=name: build()[name].to(DTYPES[dtype]))  # type: ignore[misc]
        for name, tensor in described.items()
    }
