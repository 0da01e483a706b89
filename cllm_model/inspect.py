"""What a checkpoint is, told from its config and its headers, plus the hash of its files."""

import math
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from cllm_model import checkpoint
from cllm_model.config import ControlLLMConfig
from cllm_model.mean_weights import factor_weights, has_one_weight, measured_weights_of
from cllm_model.names import to_checkpoint
from cllm_model.tensors import DTYPES


def inspect(model: Path, family: str | None = None) -> dict[str, Any]:
    """Return the facts of an expanded checkpoint, by name; sizes in bytes.

    Args:
        model: Directory of an expanded checkpoint.
        family: The base's family, where the checkpoint does not tell it.

    Raises:
        ValueError: The directory is not a valid expanded checkpoint.
    """
    config, tensors = checkpoint.open_expanded(model, family)
    dual = config.dual
    trained = _trained(config)
    count = {name: math.prod(tensor.shape) for name, tensor in tensors.items()}
    dtype = next(iter(tensors.values())).dtype
    kv_base, kv_dual = config.kv_elements()
    weights: dict[int, float] = {}
    if dual.expanded_layers:
        weights = factor_weights(tensors, config) if has_one_weight(dual) else measured_weights_of(model, dual)
    return {
        "format": config.model_type,
        "family": config.base_model_type,
        "expansion": dual.kind,
        "branch": dual.branch,
        "merge_method": dual.merge_method,
        "interpolation_factor": dual.interpolation_factor,
        "factor_frozen": dual.freeze_factor,
        "norm_alpha": dual.norm_alpha,
        "layers": config.num_hidden_layers,
        "layers_of_base": config.num_hidden_layers - dual.num_added,
        "expanded_layers": list(dual.expanded_layers),
        "stacked_layers": list(dual.stacked_layers),
        "mean_weights": {str(layer): weights.get(layer) for layer in dual.expanded_layers},
        "dtype": dtype,
        "parameters_trained": sum(count[name] for name in trained),
        "parameters_frozen": sum(count[name] for name in tensors.keys() - trained),
        "bytes": sum(tensor.nbytes for tensor in tensors.values()),
        "kv_bytes_per_token_base": kv_base * DTYPES[dtype].itemsize,
        "kv_bytes_per_token_dual": kv_dual * DTYPES[dtype].itemsize,
        "checkpoint": checkpoint.checkpoint_hash(model),
    }


def _trained(config: ControlLLMConfig) -> set[str]:
    """Return the tensors that training changes, as the model itself tells it."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    model.freeze_pretrained()
    return {to_checkpoint(name) for name, parameter in model.named_parameters() if parameter.requires_grad}
