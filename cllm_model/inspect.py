"""What a checkpoint is, told from its config and its headers, plus the hash of its files."""

import math
from pathlib import Path
from typing import Any

from cllm_model import checkpoint
from cllm_model.expand import EXPANDED
from cllm_model.names import to_module

_DTYPE_BYTES = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2, "F8_E4M3": 1, "F8_E5M2": 1}


def inspect(model: Path) -> dict[str, Any]:
    """Return the facts of a dual-branch checkpoint, by name; sizes in bytes.

    Raises:
        ValueError: The directory is not a valid dual-branch checkpoint.
    """
    config = checkpoint.check_expanded(model)
    dual = config.dual
    tensors = checkpoint.read_headers(model)
    trained = {name for name in tensors if f".{EXPANDED}." in name or ".interpolator." in to_module(name)}
    count = {name: math.prod(info.shape) for name, info in tensors.items()}
    dtype_bytes = _DTYPE_BYTES[next(iter(tensors.values())).dtype]
    kv_layer = 2 * config.num_key_value_heads * config.head_dim * dtype_bytes  # keys and values of one token
    return {
        "format": config.model_type,
        "family": config.base_model_type,
        "expansion": dual.kind,
        "branch": dual.branch,
        "merge_method": dual.merge_method,
        "layers": config.num_hidden_layers,
        "expanded_layers": list(dual.expanded_layers),
        "dtype": "/".join(sorted({info.dtype for info in tensors.values()})),
        "parameters_trained": sum(count[name] for name in trained),
        "parameters_frozen": sum(count[name] for name in tensors if name not in trained),
        "bytes": sum(count[name] * _DTYPE_BYTES[info.dtype] for name, info in tensors.items()),
        "kv_bytes_per_token_base": kv_layer * config.num_hidden_layers,
        "kv_bytes_per_token_dual": kv_layer * (config.num_hidden_layers + len(dual.expanded_layers)),
        "checkpoint": checkpoint.checkpoint_hash(model),
    }
