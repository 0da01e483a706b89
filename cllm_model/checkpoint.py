"""Checkpoint directories: config.json beside safetensors files, read by header first, written whole or not at all.

Knows what tensors a configuration calls for; knows nothing of how a checkpoint was expanded or trained.
"""

import hashlib
import json
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedConfig

from cllm_model import names
from cllm_model.config import ControlLLMConfig
from cllm_model.families import FAMILIES
from cllm_model.published import PublishedConfig, is_published_stack

CONTROL_LLM_TYPES = (ControlLLMConfig.model_type, PublishedConfig.model_type)
CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
SHARD_BYTES = 4 * 2**30
COMPANIONS = (
    "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt",
    "chat_template*", "generation_config.json", "LICENSE*", "NOTICE*",
)  # fmt: skip
"""What is carried from one checkpoint to another made from it; anything else may speak of the old one only."""

_SHOWN = 8  # names listed in an error message, of each kind


class CheckpointError(ValueError):
    """A checkpoint directory that cannot be used, and why."""


class TensorInfo(NamedTuple):
    """What a safetensors header says of a tensor: where it lies, its shape and its dtype's name."""

    file: Path
    shape: tuple[int, ...]
    dtype: str


def read_config(directory: Path, model_types: Sequence[str]) -> PreTrainedConfig:
    """Return the configuration of a checkpoint directory.

    Raises:
        CheckpointError: There is no such directory or config, or its model_type is not one of `model_types`.
        ValueError: A field of the configuration is not valid.
    """
    if not directory.is_dir():
        raise CheckpointError(f"{directory}: no such directory")
    path = directory / CONFIG
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; a checkpoint directory holds one")
    try:
        values = json.loads(path.read_text())
    except ValueError as error:
        raise CheckpointError(f"{path}: not JSON: {error}") from error
    model_type = values.get("model_type") if isinstance(values, dict) else None
    if isinstance(values, dict) and is_published_stack(values) and PublishedConfig.model_type in model_types:
        return PublishedConfig.from_dict({**values, "base_model_type": model_type})
    if model_type not in tuple(model_types):
        raise CheckpointError(f"{path}: model_type: {model_type!r} is not one of {', '.join(model_types)}")
    return CONFIG_MAPPING[model_type].from_dict(values)


def read_headers(directory: Path) -> dict[str, TensorInfo]:
    """Return the tensors of a checkpoint directory by name, from the files' headers alone.

    Raises:
        CheckpointError: A file is missing, truncated or not safetensors.
    """
    tensors = {}
    for file in _files(directory):
        try:
            with safe_open(file, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118 - not a dict
                    view = opened.get_slice(name)
                    tensors[name] = TensorInfo(file, tuple(view.get_shape()), view.get_dtype())
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{file}: cannot be read as safetensors, truncated perhaps: {error}") from error
    return tensors


def _files(directory: Path) -> list[Path]:
    index = directory / INDEX
    if index.is_file():
        listed = json.loads(index.read_text())["weight_map"].values()
        files = [directory / name for name in sorted(set(listed))]
    else:
        files = [directory / SINGLE]
    for file in files:
        if not file.is_file():
            raise CheckpointError(f"{file}: no such file; weights are read from {SINGLE}, or the files in {INDEX}")
    return files


def expected_shapes(config: PreTrainedConfig) -> dict[str, tuple[int, ...]]:
    """Return the tensors that a configuration calls for, by checkpoint name. Allocates nothing."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    shapes = {names.to_checkpoint(name): tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if config.tie_word_embeddings:
        del shapes["lm_head.weight"]
    return shapes


def check(directory: Path, model_types: Sequence[str] = CONTROL_LLM_TYPES) -> PreTrainedConfig:
    """Return the configuration of a checkpoint whose tensors are the ones that it calls for.

    Raises:
        CheckpointError: Tensors are missing, left over or misshapen; the message names them.
    """
    config = read_config(directory, model_types)
    expected = expected_shapes(config)
    found = {name: info.shape for name, info in read_headers(directory).items()}
    if config.tie_word_embeddings:
        found.pop("lm_head.weight", None)  # some writers repeat the tied tensor
    problems = {
        "missing": sorted(expected.keys() - found.keys()),
        "left over": sorted(found.keys() - expected.keys()),
        "misshapen": [
            f"{name} {list(found[name])} instead of {list(expected[name])}"
            for name in sorted(expected.keys() & found.keys())
            if found[name] != expected[name]
        ],
    }
    if any(problems.values()):
        parts = [f"{kind}: {_shorten(listed)}" for kind, listed in problems.items() if listed]
        raise CheckpointError(f"{directory}: the tensors do not fit {CONFIG}; {'; '.join(parts)}")
    return config


def check_expanded(directory: Path) -> ControlLLMConfig:
    """`check` for an expanded checkpoint, in our format or the published one."""
    config = check(directory)
    assert isinstance(config, ControlLLMConfig)
    return config


def check_base(directory: Path) -> PreTrainedConfig:
    """`check` for a plain checkpoint of a base family."""
    return check(directory, tuple(FAMILIES))


def _shorten(listed: list[str]) -> str:
    more = len(listed) - _SHOWN
    return ", ".join(listed[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def read_tensors(directory: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a checkpoint by name, one at a time."""
    for file in _files(directory):
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - not a dict
                yield name, opened.get_tensor(name)


def write_tensors(directory: Path, tensors: Iterable[tuple[str, Tensor]], shard_bytes: int = SHARD_BYTES) -> None:
    """Write tensors as they come, holding at most about one shard in memory."""
    shards: list[list[str]] = []
    held: dict[str, Tensor] = {}
    total = size = 0

    def flush() -> None:
        nonlocal size
        save_file(held, directory / f"shard-{len(shards)}", metadata={"format": "pt"})
        shards.append(list(held))
        held.clear()
        size = 0

    for name, tensor in tensors:
        if held and size + tensor.nbytes > shard_bytes:
            flush()
        held[name] = tensor.contiguous()
        size += tensor.nbytes
        total += tensor.nbytes
    flush()
    if len(shards) == 1:
        (directory / "shard-0").rename(directory / SINGLE)
        return
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards):
        file = f"model-{number + 1:05}-of-{len(shards):05}.safetensors"
        (directory / f"shard-{number}").rename(directory / file)
        weight_map |= dict.fromkeys(shard, file)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (directory / INDEX).write_text(json.dumps(index, indent=2) + "\n")


def copy_companions(source: Path, target: Path) -> None:
    """Copy the files that match `COMPANIONS`: tokenizer, generation config, licence."""
    for pattern in COMPANIONS:
        for file in source.glob(pattern):
            shutil.copyfile(file, target / file.name)


def checkpoint_hash(directory: Path) -> str:
    """Return 12 hex digits that name a checkpoint: SHA-256 over its config and its weights."""
    digest = hashlib.sha256((directory / CONFIG).read_bytes())
    for file in _files(directory):
        with file.open("rb") as opened:
            while block := opened.read(2**20):
                digest.update(block)
    return digest.hexdigest()[:12]


@contextmanager
def write_beside(target: Path) -> Iterator[Path]:
    """Give a fresh directory beside `target`, and rename it to `target` if the block ends well.

    If the block fails, the directory is removed and nothing is left behind.

    Raises:
        CheckpointError: `target` exists already; nothing is ever overwritten.
    """
    if target.exists():
        raise CheckpointError(f"{target}: exists already; name a new directory")
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}"
    beside.mkdir()
    try:
        yield beside
        for file in beside.rglob("*"):
            file.chmod(0o755 if file.is_dir() else 0o644)  # safetensors are saved as 0600, which a server may not read
        beside.rename(target)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
