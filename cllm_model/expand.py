"""Between plain and dual-branch checkpoints: `expand` gives layers a second branch, `extract` takes the base back out.

Works on files, tensor by tensor; no model is built.
"""

from collections.abc import Iterator
from pathlib import Path

from torch import Tensor
from transformers import PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from cllm_model import checkpoint, names
from cllm_model.config import ControlLLMConfig, Expansion, regular_layers
from cllm_model.interpolators import build_interpolator

PRETRAINED = "pretrained_layer"
EXPANDED = "expanded_layer"


def expand(base: Path, out: Path, layers: int, method: str, factor: float = 0.0) -> ControlLLMConfig:
    """Write a dual-branch checkpoint in which evenly spaced layers of a base carry a fresh copy of themselves.

    Args:
        base: Directory of a plain checkpoint.
        out: Directory to write; must not exist.
        layers: Number of dual-branch layers; divides the base's.
        method: Merge method.
        factor: Initial logit of the interpolation weight.

    Returns:
        The configuration that was written.

    Raises:
        ValueError: An argument or the base checkpoint is not valid; nothing is left behind.
    """
    base_config = checkpoint.check_base(base)
    expansion = Expansion(regular_layers(base_config.num_hidden_layers, layers), method, interpolation_factor=factor)
    config = _dual_config(base_config, expansion)
    with checkpoint.write_beside(out) as beside:
        checkpoint.write_tensors(beside, _expanded_tensors(base, config))
        checkpoint.copy_companions(base, beside)
        config.save_pretrained(beside)
    return config


def extract(model: Path, out: Path) -> PreTrainedConfig:
    """Write the base branch of a dual-branch checkpoint as a plain checkpoint of its family.

    Returns:
        The configuration that was written.

    Raises:
        ValueError: The checkpoint is not valid, or `out` exists; nothing is left behind.
    """
    config = checkpoint.check(model)
    assert isinstance(config, ControlLLMConfig)
    base_config = config.base_config()
    base_config.architectures = [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[config.base_model_type]]
    with checkpoint.write_beside(out) as beside:
        checkpoint.write_tensors(beside, _base_tensors(model))
        checkpoint.copy_companions(model, beside)
        base_config.save_pretrained(beside)
    return base_config


def _dual_config(base_config: PreTrainedConfig, expansion: Expansion) -> ControlLLMConfig:
    values = base_config.to_dict()
    values.pop("transformers_version")
    values |= {"base_model_type": values.pop("model_type"), "architectures": [ControlLLMConfig.architecture]}
    return ControlLLMConfig(**values, expansion=expansion.to_dict())


def _expanded_tensors(base: Path, config: ControlLLMConfig) -> Iterator[tuple[str, Tensor]]:
    dual = config.dual
    prefixes = {f"model.layers.{i}.": i for i in dual.expanded_layers}
    for name, tensor in checkpoint.read_tensors(base):
        dtype = tensor.dtype
        prefix = ".".join(name.split(".")[:3]) + "."
        if prefix not in prefixes:
            yield name, tensor
            continue
        rest = name.removeprefix(prefix)
        yield f"{prefix}{PRETRAINED}.{rest}", tensor
        yield f"{prefix}{EXPANDED}.{rest}", tensor.clone()
    fresh = build_interpolator(dual.merge_method, config.hidden_size, dual.interpolation_factor).state_dict()
    for prefix in prefixes:
        for name, tensor in fresh.items():
            yield names.to_checkpoint(f"{prefix}interpolator.{name}"), tensor.to(dtype, copy=True)


def _base_tensors(model: Path) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in checkpoint.read_tensors(model):
        if f".{EXPANDED}." not in name and ".interpolator." not in names.to_module(name):
            yield name.replace(f".{PRETRAINED}.", "."), tensor
