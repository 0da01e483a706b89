"""Checkpoint directories: config.json beside safetensors files, checked by header first, written whole or not at all.

Knows what tensors a configuration calls for; knows nothing of how a checkpoint was expanded or trained.
"""

import hashlib
import json
import logging
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedConfig

from cllm_model import names
from cllm_model.config import ControlLLMConfig
from cllm_model.families import FAMILIES
from cllm_model.published import PublishedConfig, base_family, is_published_stack
from cllm_model.tensors import (
    DTYPES,
    CheckpointError,
    LazyTensor,
    pickle_files,
    read_headers,
    weight_files,
    write_tensors,
)

logger = logging.getLogger(__name__)

__all__ = [
    "CONFIG",
    "CONTROL_LLM_TYPES",
    "CheckpointError",
    "check",
    "check_base",
    "check_tensors",
    "checkpoint_hash",
    "copy_companions",
    "expected_shapes",
    "open_base",
    "open_expanded",
    "read_config",
    "read_json",
    "refuse_code",
    "write_beside",
    "write_checkpoint",
]

CONTROL_LLM_TYPES = (ControlLLMConfig.model_type, PublishedConfig.model_type)
CONFIG = "config.json"
COMPANIONS = (
    "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt",
    "chat_template*", "generation_config.json", "LICENSE*", "NOTICE*",
)  # fmt: skip
"""What is carried from one checkpoint to another made from it; anything else may speak of the old one only."""

_SHOWN = 8  # names listed in an error message, of each kind
_HEAD = "lm_head.weight"


def read_config(directory: Path, model_types: Sequence[str], family: str | None = None) -> PreTrainedConfig:
    """Return the configuration of a checkpoint directory.

    Args:
        directory: The checkpoint.
        model_types: What its model_type may be.
        family: The base's model type, for a config.json that does not tell it; must agree with one that does.

    Raises:
        CheckpointError: There is no such directory or config, it asks for code of its own (`auto_map`), or its
            model_type is not one of `model_types`.
        ValueError: A field of the configuration is not valid.
    """
    if not directory.is_dir():
        raise CheckpointError(f"{directory}: no such directory")
    path = directory / CONFIG
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; a checkpoint directory holds one")
    refuse_code(directory)
    values = read_json(path)
    model_type = values.get("model_type")
    if PublishedConfig.model_type in model_types and is_published_stack(values):
        model_type = PublishedConfig.model_type
    elif family is not None and model_type not in CONFIG_MAPPING:
        model_type = family  # a type that says nothing
    if model_type not in tuple(model_types):
        raise CheckpointError(f"{path}: model_type: {model_type!r} is not one of {', '.join(model_types)}")
    if model_type == PublishedConfig.model_type:
        inferred = base_family(values, directory, family)
        return PublishedConfig.from_dict(values | {"model_type": model_type, "base_model_type": inferred})
    told = values.get("base_model_type") if model_type == ControlLLMConfig.model_type else model_type
    if family not in (None, told):
        raise CheckpointError(f"{path}: the family is {told!r}, and not {family!r}")
    return CONFIG_MAPPING[model_type].from_dict(values | {"model_type": model_type})


def refuse_code(directory: Path) -> None:
    """Check that a checkpoint does not ask for code of its own.

    Raises:
        CheckpointError: Its config.json, or that of its tokenizer, holds an `auto_map`.
    """
    for file in sorted(directory.glob("*config.json")):
        if "auto_map" in read_json(file):
            raise CheckpointError(f"{file}: auto_map: not allowed; code from a checkpoint is never run")


def read_json(file: Path) -> dict[str, Any]:
    """Return a JSON object from a file of a checkpoint, or from one that is about it.

    Raises:
        CheckpointError: There is none.
    """
    try:
        values = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: cannot be read as JSON: {error}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{file}: not a JSON object")
    return values


def expected_shapes(config: PreTrainedConfig) -> dict[str, tuple[int, ...]]:
    """Return the tensors that a configuration calls for, by checkpoint name. Allocates nothing."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    shapes = {names.to_checkpoint(name): tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if config.tie_word_embeddings:
        del shapes[_HEAD]
    return shapes


def check_tensors(directory: Path, config: PreTrainedConfig) -> dict[str, LazyTensor]:
    """Return the tensors of a checkpoint, which are those that its configuration calls for, all of one dtype.

    An interpolator alone may be fp32 beside narrower layers, as the authors' gates are in a bf16 model.

    Raises:
        CheckpointError: Tensors are missing, left over, misshapen or of several dtypes; the message names them. Or
            the weights cannot be read.
    """
    expected = expected_shapes(config)
    found = read_headers(directory)
    if pickles := pickle_files(directory):
        logger.warning("%s: pickle files beside the weights are never read: %s", directory, ", ".join(pickles))
    if config.tie_word_embeddings:
        found.pop(_HEAD, None)  # some writers repeat the tied tensor
    problems = {
        "missing": sorted(expected.keys() - found.keys()),
        "left over": sorted(found.keys() - expected.keys()),
        "misshapen": [
            f"{name} {list(found[name].shape)} instead of {list(expected[name])}"
            for name in sorted(expected.keys() & found.keys())
            if found[name].shape != expected[name]
        ],
    }
    if any(problems.values()):
        parts = [f"{kind}: {_shorten(listed)}" for kind, listed in problems.items() if listed]
        raise CheckpointError(f"{directory}: the tensors do not fit {CONFIG}; {'; '.join(parts)}")
    by_dtype: dict[str, list[str]] = {}
    for name, tensor in sorted(found.items()):
        if tensor.dtype == "F32" and names.is_interpolation(name):
            continue
        by_dtype.setdefault(tensor.dtype, []).append(name)
    listed = "; ".join(f"{dtype}: {_shorten(by_dtype[dtype])}" for dtype in sorted(by_dtype))
    if len(by_dtype) > 1:
        raise CheckpointError(f"{directory}: mixed dtypes, where one is allowed; {listed}")
    if not by_dtype.keys() <= DTYPES.keys():
        raise CheckpointError(f"{directory}: the dtype is not one of {', '.join(DTYPES)}; {listed}")
    return found


def check(
    directory: Path, model_types: Sequence[str] = CONTROL_LLM_TYPES, family: str | None = None
) -> PreTrainedConfig:
    """Return the configuration of a checkpoint whose tensors are the ones that it calls for.

    Raises:
        ValueError: See `read_config` and `check_tensors`.
    """
    config = read_config(directory, model_types, family)
    check_tensors(directory, config)
    return config


def open_expanded(directory: Path, family: str | None = None) -> tuple[ControlLLMConfig, dict[str, LazyTensor]]:
    """Return configuration and tensors of an expanded checkpoint, in our format or the published one, checked.

    Raises:
        ValueError: See `read_config` and `check_tensors`.
    """
    config = read_config(directory, CONTROL_LLM_TYPES, family)
    assert isinstance(config, ControlLLMConfig)
    return config, check_tensors(directory, config)


def open_base(directory: Path, family: str | None = None) -> tuple[PreTrainedConfig, dict[str, LazyTensor]]:
    """Return configuration and tensors of a plain checkpoint of a base family, one that was merged back among them.

    Raises:
        ValueError: It is a stacked expansion that was not merged back; or see `read_config` and `check_tensors`.
    """
    config = read_config(directory, tuple(FAMILIES), family)
    if is_published_stack(config.to_dict()):
        raise CheckpointError(f"{directory}: a stacked expansion, not a base; merge it back first")
    return config, check_tensors(directory, config)


def check_base(directory: Path, family: str | None = None) -> PreTrainedConfig:
    """Return the configuration of a plain checkpoint of a base family, checked as by `open_base`."""
    return open_base(directory, family)[0]


def _shorten(listed: list[str]) -> str:
    more = len(listed) - _SHOWN
    return ", ".join(listed[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def copy_companions(source: Path, target: Path) -> None:
    """Copy the files that match `COMPANIONS`: tokenizer, generation config, licence."""
    for pattern in COMPANIONS:
        for file in source.glob(pattern):
            shutil.copyfile(file, target / file.name)


def checkpoint_hash(directory: Path) -> str:
    """Return 12 hex digits that name a checkpoint: SHA-256 over its config and its weights."""
    digest = hashlib.sha256((directory / CONFIG).read_bytes())
    for file in weight_files(directory):
        with file.open("rb") as opened:
            while block := opened.read(2**20):
                digest.update(block)
    return digest.hexdigest()[:12]


def write_checkpoint(target: Path, config: PreTrainedConfig, tensors: Mapping[str, LazyTensor], source: Path) -> None:
    """Write a checkpoint made from another, whose companion files it gets; tensors are loaded one at a time.

    Raises:
        CheckpointError: `target` exists already.
    """
    assert {name: tensor.shape for name, tensor in tensors.items()} == expected_shapes(config)
    with write_beside(target) as beside:
        write_tensors(beside, tensors)
        copy_companions(source, beside)
        config.save_pretrained(beside)


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
            file.chmod(0o755 if file.is_dir() else 0o644)  # a server of another user must be able to read them
        beside.rename(target)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
