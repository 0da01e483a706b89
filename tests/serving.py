"""Real servers for tests: `cllm serve` in a process of its own, shared by all tests of the session that ask for it.

A server costs about half a minute to start, so `shared` starts one per checkpoint and `stop_all` ends them; fixtures in
several conftests may call both.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

START_S = 500  # of a busy machine
STOP_S = 30
_ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "VLLM_ENABLE_V1_MULTIPROCESSING"}
DEMO = Path(__file__).parents[1] / "demo" / "model"


@dataclass(frozen=True)
class Server:
    """A server that answers."""

    name: str
    model: Path
    port: int
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.root}/v1"


def command(*arguments: object, python: str | Path = sys.executable) -> list[str]:
    return [str(python), "-m", "cllm", "serve", *map(str, arguments)]


def environment(**changes: str) -> dict[str, str]:
    """The environment as it was, without what engines in this process have set for themselves."""
    return _ENVIRONMENT | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"} | changes


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(model: Path, name: str, *options: object, python: str | Path = sys.executable, **variables: str) -> Server:
    """Start a server and wait until it is ready."""
    return wait(begin(model, name, *options, python=python, **variables))


def begin(model: Path, name: str, *options: object, python: str | Path = sys.executable, **variables: str) -> Server:
    """Start a server; `wait` for it before it is used."""
    port = free_port()
    log = Path(tempfile.mkdtemp(prefix="cllm-serve-")) / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command(model, "--name", name, "--port", port, "--kv-cache-memory-bytes", 2**27, *options, python=python),
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment(**variables),
            start_new_session=True,
        )
    return Server(name, model, port, process, log)


def wait(server: Server) -> Server:
    """Wait until a server is ready."""
    process = server.process
    deadline = time.monotonic() + START_S
    while not is_ready(server):
        if process.poll() is not None or time.monotonic() > deadline:
            kill(server)
            log = server.log.read_text()[-4000:]
            raise RuntimeError(f"{' '.join(map(str, process.args))} did not become ready:\n{log}")
        time.sleep(0.5)
    return server


def is_ready(server: Server) -> bool:
    try:
        return httpx.get(f"{server.root}/ready", verify=False).status_code == 200
    except httpx.TransportError:
        return False


def stop(server: Server) -> int:
    """Ask a server to end, and return its exit code."""
    server.process.send_signal(signal.SIGTERM)
    try:
        return server.process.wait(STOP_S)
    finally:
        kill(server)


def kill(server: Server) -> None:
    """End a server's process and all below it: vLLM's engine would outlive it."""
    with suppress(ProcessLookupError):
        os.killpg(server.process.pid, signal.SIGKILL)


_shared: dict[Path, Server] = {}


def shared(model: Path, name: str) -> Server:
    """The session's server of a checkpoint."""
    if model not in _shared:
        _shared[model] = start(model, name)
    return _shared[model]


def stop_all() -> None:
    """End the shared servers; each must end cleanly."""
    codes = {name: stop(server) for name, server in _shared.items()}
    _shared.clear()
    assert not any(codes.values()), codes
