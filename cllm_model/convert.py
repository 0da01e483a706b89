"""Between our format and the one of the paper's authors: the tensors are the same, config.json is written anew."""

import json
import shutil
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from cllm_model import checkpoint
from cllm_model.published import PublishedConfig, from_published_config, to_published
from cllm_model.tensors import INDEX, weight_files

FORMATS = ("control-llm", "published")


def convert(model: Path, out: Path, format: str, family: str | None = None) -> PreTrainedConfig:
    """Write an expanded checkpoint in another format; weight files are copied as they are.

    Args:
        model: Directory of an expanded checkpoint.
        out: Directory to write; must not exist.
        format: One of `FORMATS`.
        family: The base's family, where the checkpoint does not tell it.

    Returns:
        The configuration that was written.

    Raises:
        ValueError: The checkpoint is not valid, has that format already, or cannot be said in it; nothing is left
            behind.
    """
    if format not in FORMATS:
        raise ValueError(f"format: {format!r} is not one of {', '.join(FORMATS)}")
    config, _ = checkpoint.open_expanded(model, family)
    published = isinstance(config, PublishedConfig)
    if published == (format == "published"):
        raise ValueError(f"format: {model} has the format {format!r} already")
    written = from_published_config(config) if isinstance(config, PublishedConfig) else to_published(config)
    with checkpoint.write_beside(out) as beside:
        files = weight_files(model)
        index = model / INDEX
        for file in [*files, index] if index.is_file() else files:
            shutil.copyfile(file, beside / file.name)
        checkpoint.copy_companions(model, beside)
        written.save_pretrained(beside)
        if format == "published":
            _add_old_spellings(beside / checkpoint.CONFIG)
    return written


def _add_old_spellings(file: Path) -> None:
    """Name dtype and rope as transformers 4 did too, which the authors' code runs on; it would take defaults else."""
    values: dict[str, Any] = json.loads(file.read_text())
    values["torch_dtype"] = values.get("dtype")
    if rope := values.get("rope_parameters"):
        scaling = {name: value for name, value in rope.items() if name != "rope_theta"}
        values |= {
            "rope_theta": rope["rope_theta"],
            "rope_scaling": None if scaling.get("rope_type", "default") == "default" else scaling,
        }
    file.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")
