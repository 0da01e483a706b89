"""Processes of their own for functions of tests: forked from a server that has imported what is slow to import once."""

import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.tiny_training"])


def run(function: Callable[..., None], *arguments: Any, seconds: float = 120) -> int:
    """Call a module's function in a new process, and return how that ended: 0, 1 after an exception, -9 when killed."""
    [code] = run_all(function, [arguments], seconds)
    return code


def run_all(function: Callable[..., None], calls: list[tuple[Any, ...]], seconds: float = 120) -> list[int]:
    """The same for several processes at once, with arguments of their own."""
    started = [_CONTEXT.Process(target=function, args=arguments) for arguments in calls]
    for process in started:
        process.start()
    for process in started:
        process.join(seconds)
    for process in started:
        if process.is_alive():
            process.kill()
            process.join()
    codes = [process.exitcode for process in started]
    assert all(code is not None for code in codes)
    return [code for code in codes if code is not None]


@contextmanager
def rank_of(rank: int, processes: int, port: int) -> Iterator[None]:
    """What torchrun tells a process."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    torch.set_num_threads(1)
    yield
    torch.distributed.destroy_process_group()
