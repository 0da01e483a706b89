"""The container's files pass the linters of their formats, and ask `cllm` for what it has."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
TOOLS = Path(sys.executable).parent
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
VARIANTS = ("cpu", "gpu")


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, command)], capture_output=True, text=True, cwd=ROOT)


@pytest.mark.parametrize(
    "command",
    [("hadolint", "Dockerfile"), ("check-jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml")],
    ids=lambda command: command[0],
)
def test_linters(command):
    result = run(TOOLS / command[0], *command[1:])
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_mistake_does_not_pass_the_linters(tmp_path):
    """The negative control: the linters do look."""
    (tmp_path / "Dockerfile").write_text("FROM python\nRUN cd /tmp\n")
    (tmp_path / "compose.yaml").write_text("services: {server: {restrat: always}}\n")
    assert run(TOOLS / "hadolint", tmp_path / "Dockerfile").returncode
    assert run(
        TOOLS / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", tmp_path / "compose.yaml"
    ).returncode


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_profile_is_a_server_and_a_page_that_waits_for_it(variant):
    services = {name: service for name, service in COMPOSE["services"].items() if variant in service["profiles"]}
    assert set(services) == {f"server-{variant}", f"ui-{variant}"}
    assert {service["image"] for service in services.values()} == {f"control-llm:{variant}"}
    server, page = services[f"server-{variant}"], services[f"ui-{variant}"]
    assert server["build"]["args"]["VARIANT"] == variant
    assert page["depends_on"] == {f"server-{variant}": {"condition": "service_healthy"}}
    for service in services.values():
        assert service["read_only"] and service["restart"] and "/tmp" in service["tmpfs"]


def test_the_dockerfile_has_these_variants():
    assert set(re.findall(r"^ +(?:RUN case .* )?(\w+)\) ", (ROOT / "Dockerfile").read_text(), re.M)) == set(VARIANTS)


@pytest.mark.parametrize("service", COMPOSE["services"])
def test_commands_are_options_of_cllm(service):
    name, *words = COMPOSE["services"][service]["command"]
    help_text = run(sys.executable, "-m", "cllm", name, "--help").stdout
    assert "Usage" in help_text
    assert {word for word in words if word.startswith("--")} <= set(re.findall(r"--[a-z-]+", help_text))
