"""Safetensors files of a directory: read by header, handed on one tensor at a time, written in shards.

Knows no model. What is read is known by name, shape and dtype before any of it is in memory, and what is written is
described the same way, so that whole checkpoints pass through with one tensor in memory at a time.
"""

import json
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARD_BYTES = 4 * 2**30
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""Dtypes that weights may have: name in a safetensors header -> torch's."""
PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl")
"""Files that may run code when they are read; they never are."""

_ALIGNMENT = 8  # bytes to which a safetensors header is padded


class CheckpointError(ValueError):
    """A checkpoint directory that cannot be used, and why."""


class LazyTensor(NamedTuple):
    """A tensor that is described before it is there.

    Attributes:
        shape: Its shape.
        dtype: Its dtype, as `DTYPES` name them.
        load: Returns it.
    """

    shape: tuple[int, ...]
    dtype: str
    load: Callable[[], Tensor]

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * DTYPES[self.dtype].itemsize


def lazy_map(function: Callable[..., Tensor], *tensors: LazyTensor) -> LazyTensor:
    """Return what a function makes of tensors: of the first one's shape, brought to its dtype."""
    shape, dtype, _ = tensors[0]
    return LazyTensor(shape, dtype, lambda: function(*(tensor.load() for tensor in tensors)).to(DTYPES[dtype]))


def lazy(tensor: Tensor, dtype: str) -> LazyTensor:
    """Return a tensor that is there already as a `LazyTensor` of a dtype."""
    return LazyTensor(tuple(tensor.shape), dtype, lambda: tensor.to(DTYPES[dtype]))


def weight_files(directory: Path) -> list[Path]:
    """Return the files that hold a directory's weights.

    Raises:
        CheckpointError: There are none, or it is not clear which.
    """
    single, index = directory / SINGLE, directory / INDEX
    if single.is_file() and index.is_file():
        raise CheckpointError(f"{directory}: holds both {SINGLE} and {INDEX}; remove the one that is not meant")
    files = [directory / name for name in sorted(set(_weight_map(index).values()))] if index.is_file() else [single]
    for file in files:
        if not file.is_file():
            pickles = pickle_files(directory)
            raise CheckpointError(
                f"{file}: no such file; weights are read from {SINGLE}, or the files in {INDEX}"
                + (f". Pickle files are never read: {', '.join(pickles)}" if pickles else "")
            )
    return files


def pickle_files(directory: Path) -> list[str]:
    """Return the names of the pickle files in a directory."""
    return sorted(file.name for pattern in PICKLES for file in directory.glob(pattern))


def _weight_map(index: Path) -> dict[str, str]:
    try:
        weight_map = json.loads(index.read_text())["weight_map"]
        names = set(weight_map.values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index}: not an index of safetensors files: {error!r}") from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise CheckpointError(f"{index}: {name!r} is not the name of a safetensors file beside it")
    return weight_map


def read_headers(directory: Path) -> dict[str, LazyTensor]:
    """Return the tensors of a directory by name; only the files' headers are read.

    Raises:
        CheckpointError: A file is missing, truncated or not safetensors, its tensors are not those of the index, or
            two files hold a tensor of one name.
    """
    tensors: dict[str, LazyTensor] = {}
    files = weight_files(directory)
    index = directory / INDEX
    weight_map = _weight_map(index) if index.is_file() else None
    for file in files:
        try:
            with safe_open(file, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118 - not a dict
                    view = opened.get_slice(name)
                    if name in tensors:
                        raise CheckpointError(f"{file}: {name} is in another file too")
                    tensors[name] = LazyTensor(tuple(view.get_shape()), view.get_dtype(), partial(_read, file, name))
                    if weight_map is not None and weight_map.get(name) != file.name:
                        raise CheckpointError(f"{index}: {name} is in {file.name}, not in {weight_map.get(name)}")
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{file}: cannot be read as safetensors, truncated perhaps: {error}") from error
    if weight_map is not None and (absent := sorted(weight_map.keys() - tensors.keys())):
        raise CheckpointError(f"{index}: {absent[0]} is not in {weight_map[absent[0]]}")
    return tensors


def _read(file: Path, name: str) -> Tensor:
    """Return one tensor. The file is opened for it alone: its pages leave memory with the tensor."""
    with safe_open(file, framework="pt") as opened:
        return opened.get_tensor(name)


def write_tensors(directory: Path, tensors: Mapping[str, LazyTensor], shard_bytes: int = SHARD_BYTES) -> None:
    """Write tensors to one file, or to files of at most `shard_bytes` and an index; one is loaded at a time.

    A tensor that is larger than `shard_bytes` gets a file of its own.
    """
    shards: list[dict[str, LazyTensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if shards[-1] and size + tensor.nbytes > shard_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    if len(shards) == 1:
        _write_file(directory / SINGLE, shards[0])
        return
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        _write_file(directory / file, shard)
        weight_map |= dict.fromkeys(shard, file)
    total = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (directory / INDEX).write_text(json.dumps(index, indent=2) + "\n")


def _write_file(file: Path, tensors: Mapping[str, LazyTensor]) -> None:
    """Write one safetensors file, as its format says: header length, header in JSON, then the bytes of the tensors."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        header[name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [end, end := end + tensor.nbytes],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with file.open("wb") as opened:
        opened.write(len(text).to_bytes(8, "little"))
        opened.write(text)
        for name, described in tensors.items():
            opened.write(_bytes(name, described))


def _bytes(name: str, described: LazyTensor) -> Any:
    """Return a tensor's memory, as `write` takes it."""
    tensor = described.load()
    assert (tuple(tensor.shape), tensor.dtype) == (described.shape, DTYPES[described.dtype]), name
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
