"""`cllm ui` as a process: help without Gradio, a port in use, a clean end."""

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.serving import free_port
from tests.ui.fake_server import FakeServer, wait_until

ROOT = Path(__file__).parents[2]
PROGRAM = "import typer; from ui.cli import ui; typer.run(ui)"
HEAVY = ("gradio", "torch", "vllm", "transformers", "openai", "cllm_model", "serve", "training")


def command(program: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize("module", ["ui.cli", "demo.cli"])
def test_the_command_imports_nothing_heavy(module: str) -> None:
    loaded = f"import sys, {module}; sys.exit(', '.join(m for m in {HEAVY} if m in sys.modules) or 0)"
    process = command(loaded)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output


def test_the_page_needs_no_torch_and_no_other_package() -> None:
    others = [name for name in HEAVY if name not in ("gradio", "openai")]
    loaded = f"import sys, ui.app; sys.exit(', '.join(m for m in {others} if m in sys.modules) or 0)"
    process = command(loaded)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output


def test_a_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        process = command(PROGRAM, "--port", port)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert f"Port {port}" in output and "--port" in output


def test_an_address_that_is_none() -> None:
    process = command(PROGRAM, "--api-url", "nonsense")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2 and "nonsense" in output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_and_ends_cleanly(fake: FakeServer, number: signal.Signals) -> None:
    port = free_port()
    process = command(PROGRAM, "--port", str(port), "--api-url", fake.url)
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/"), 60)
        process.send_signal(number)
        output, _ = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 0, output
    assert f"http://127.0.0.1:{port}" in output and "Traceback" not in output


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False
