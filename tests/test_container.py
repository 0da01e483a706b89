"""The container's files pass the linters of their formats, and ask for what the server has and needs.

Images are built and run by hand: docs/log.md has what was seen.
"""

import json
import os
import re
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import pytest
import yaml

from serve import preflight

ROOT = Path(__file__).parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text()
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
    (choices,) = re.findall(r'^RUN case "\$VARIANT" in ([^)]+)\)', DOCKERFILE, re.M)
    assert choices.split(" | ") == [*VARIANTS]
    assert all(f"requirements-{variant}.lock" in DOCKERFILE for variant in VARIANTS)


@pytest.mark.parametrize("service", COMPOSE["services"])
def test_commands_are_options_of_cllm(service):
    name, *words = COMPOSE["services"][service]["command"]
    help_text = run(sys.executable, "-m", "cllm", name, "--help").stdout
    assert "Usage" in help_text
    assert {word for word in words if word.startswith("--")} <= set(re.findall(r"--[a-z-]+", help_text))


def test_little_shared_memory_is_refused(monkeypatch):
    """A container engine gives 64 MiB, with which vLLM's processes cannot start."""
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda path: SimpleNamespace(free=2**26))
    with pytest.raises(ValueError, match="/dev/shm: 64 MiB free.* need 256 MiB.*--shm-size"):
        preflight.check_shared_memory()


def test_every_container_that_serves_is_given_shared_memory():
    sizes = [service["shm_size"] for service in COMPOSE["services"].values() if service["command"][0] == "serve"]
    pages = [DOCKERFILE, (ROOT / "README.md").read_text(), (ROOT / "docs" / "serving.md").read_text()]
    commands = re.findall(r"^(?:# +)?(docker run .+)$", "\n".join(pages), re.M)
    sizes += [re.search(r"--shm-size (\w+)", command)[1] for command in commands]
    assert len(commands) >= len(pages)
    assert all(re.fullmatch(r"\d+gb?", size) for size in sizes)


@pytest.fixture
def ready_route():
    """A server whose /ready answers with what the test sets."""
    state = SimpleNamespace(status=503)

    class Ready(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(state.status if self.path == "/ready" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Ready) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        state.port = server.server_port
        state.close = lambda: (server.shutdown(), server.server_close())
        yield state
        server.shutdown()


def test_the_health_check_follows_readiness(ready_route):
    """Its own command fails while the engine starts and when the server is gone."""
    (command,) = re.findall(r"^HEALTHCHECK .*\\\n +CMD (\[.*\])$", DOCKERFILE, re.M)
    python, *arguments = json.loads(command)
    assert python == "python3"

    def check() -> int:
        variables = os.environ | {"CLLM_PORT": str(ready_route.port)}
        return subprocess.run([sys.executable, *arguments], env=variables, capture_output=True).returncode

    assert check() != 0
    ready_route.status = 200
    assert check() == 0
    ready_route.close()
    assert check() != 0
