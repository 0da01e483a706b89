"""The processes of one training, started by torchrun or just one. All do the same; the first one writes files."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from accelerate import PartialState

# One process may wait for another that lets the base write what is rehearsed, or evaluates.
LONGEST_WAIT = timedelta(hours=24)


def count() -> int:
    """How many there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Which of them this one is, from 0 on."""
    return int(os.environ.get("RANK", "0"))


def is_first() -> bool:
    """Whether this one writes."""
    return rank() == 0


def device() -> torch.device:
    """Where this one computes."""
    found: torch.device = _state().device
    return found


def wait() -> None:
    """Wait until all have come here."""
    _state().wait_for_everyone()


@contextmanager
def first_before_others() -> Iterator[None]:
    """The first process goes through the block before the others do, so that they find what it made."""
    with _state().main_process_first():
        yield


def _state() -> PartialState:
    return PartialState(cpu=not torch.accelerator.is_available(), timeout=LONGEST_WAIT)
