"""Servers as processes of their own: started, waited for, measured, ended. Knows nothing of what is asked of them."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

START_S = 600
STOP_S = 60
_POLL_S = 0.5


@dataclass(frozen=True)
class Usage:
    """What the processes of a server hold together.

    Args:
        resident: Bytes of resident memory, shared pages counted in every process.
        proportional: Bytes of resident memory, shared pages divided among the processes that map them.
        files: Open file descriptors.
        cpu: Seconds of processor time since the start.
    """

    resident: int
    proportional: int
    files: int
    cpu: float


@dataclass(frozen=True)
class Server:
    """A server on the loopback interface."""

    root: str
    process: "subprocess.Popen[bytes]"
    log: Path

    def tree(self) -> list[psutil.Process]:
        """Return the server's process and all below it."""
        top = psutil.Process(self.process.pid)
        return [top, *top.children(recursive=True)]

    def pin_engine(self, core: int) -> None:
        """Let vLLM's engine and its workers compute on one core only; the server above them stays free."""
        for process in self.tree()[1:]:
            for thread in process.threads():
                os.sched_setaffinity(thread.id, {core})

    def usage(self) -> Usage:
        """Return what they hold now."""
        resident, proportional, files, cpu = 0, 0, 0, 0.0
        for process in self.tree():
            with suppress(psutil.NoSuchProcess):  # a helper that has ended meanwhile
                memory, times = process.memory_full_info(), process.cpu_times()
                resident += memory.rss
                proportional += memory.pss
                files += process.num_fds()
                cpu += times.user + times.system
        return Usage(resident, proportional, files, cpu)


@contextmanager
def running(command: Sequence[str], port: int, ready: str, variables: dict[str, str] | None = None) -> Iterator[Server]:
    """Start a server, yield it when it is ready, and end it.

    Args:
        command: Arguments of this Python.
        port: Where it will listen.
        ready: Path that answers 200 once it is ready.
        variables: Environment variables to add.

    Raises:
        RuntimeError: It did not become ready.
    """
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, *command],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **(variables or {})},
            )
        server = Server(f"http://127.0.0.1:{port}", process, log)
        try:
            _wait(server, ready)
            yield server
        finally:
            _end(process)


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(condition: Callable[[], bool], seconds: float, poll: float = _POLL_S) -> bool:
    """Wait until a condition holds; return whether it does."""
    deadline = time.monotonic() + seconds
    while not (holds := condition()) and time.monotonic() < deadline:
        time.sleep(poll)
    return holds


def _wait(server: Server, ready: str) -> None:
    with httpx.Client(verify=False) as http:

        def is_over() -> bool:
            try:
                return server.process.poll() is not None or http.get(server.root + ready).status_code == 200
            except httpx.TransportError:
                return False

        if not until(is_over, START_S) or server.process.poll() is not None:
            raise RuntimeError(f"{server.process.args} did not become ready:\n{server.log.read_text()[-4000:]}")


def _end(process: "subprocess.Popen[bytes]") -> None:
    below = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for child in below:  # a server that was killed leaves its engine behind
        if child.is_running():
            child.kill()
