"""Checkpoints to resume from: written beside their place and renamed, so that what is there is whole.

A checkpoint is a directory `checkpoint-STEP` with what trains, the state of optimizer, schedule and random numbers, and
the log. A list of its files and their sizes is written last: a copy that lost some of them is not taken for whole.
"""

import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import Tensor

log = logging.getLogger(__name__)
_WEIGHTS = "model.safetensors"  # where transformers looks for it
_MANIFEST = "files.json"
_PREFIX = "checkpoint-"
_BESIDE = ".writing"


def save_tensors(tensors: Mapping[str, Tensor], directory: Path) -> None:
    """Write tensors as transformers' trainer reads them."""
    directory.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, directory / _WEIGHTS, {"format": "pt"})


def load_tensors(checkpoint: Path) -> dict[str, Tensor]:
    """Read what `save_tensors` wrote."""
    return load_file(checkpoint / _WEIGHTS)


@contextmanager
def write_beside(directory: Path, accelerator: Accelerator) -> Iterator[Path]:
    """Give a directory in which all processes write one `checkpoint-STEP`; move it into `directory` if that ends well.

    What an earlier attempt left is removed first, and what this one leaves if it fails.
    """
    beside = directory / _BESIDE
    if accelerator.is_main_process:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
    accelerator.wait_for_everyone()
    try:
        yield beside
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            [written] = beside.glob(f"{_PREFIX}*")
            _seal(written, accelerator.num_processes)
            shutil.rmtree(directory / written.name, ignore_errors=True)
            written.rename(directory / written.name)
            _sync(directory)
            beside.rmdir()
        accelerator.wait_for_everyone()
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def _seal(directory: Path, processes: int) -> None:
    """Make sure that the files are on the disk, then list them."""
    files = {file.relative_to(directory).as_posix(): file for file in directory.rglob("*") if file.is_file()}
    for file in files.values():
        _sync(file)
    manifest = directory / _MANIFEST
    sizes = {name: file.stat().st_size for name, file in sorted(files.items())}
    manifest.write_text(json.dumps({"processes": processes, "sizes": sizes}, indent=1))
    _sync(manifest)
    _sync(directory)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _whole(directory: Path) -> bool:
    try:
        sizes = json.loads((directory / _MANIFEST).read_text())["sizes"]
        return all((directory / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError):
        return False


def _step_of(checkpoint: Path) -> int:
    """The number of updates that led to a checkpoint."""
    return int(checkpoint.name.removeprefix(_PREFIX))


def _all(directory: Path) -> list[Path]:
    found = [path for path in directory.glob(f"{_PREFIX}*") if path.name.removeprefix(_PREFIX).isdigit()]
    return sorted(found, key=_step_of)


def newest(directory: Path, processes: int) -> Path | None:
    """The newest whole checkpoint of a directory; None if there is none.

    Args:
        directory: Where a run wrote its checkpoints.
        processes: How many processes resume.

    Raises:
        ValueError: It was written by another number of processes, which have a random state each.
    """
    for path in reversed(_all(directory)):
        if not _whole(path):
            log.warning("%s is not whole and is left out", path)
            continue
        wrote = json.loads((path / _MANIFEST).read_text())["processes"]
        if wrote != processes:
            raise ValueError(f"{path}: written by {wrote} processes, and {processes} resume; start as many")
        return path
    return None


def remove_old(directory: Path, keep: int) -> None:
    """Remove all but the newest checkpoints."""
    for path in _all(directory)[:-keep]:
        shutil.rmtree(path, ignore_errors=True)
