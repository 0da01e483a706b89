"""`cllm demo` with stand-ins for server and page: they come up together and end together."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import demo.cli
from demo.cli import children
from tests.serving import free_port
from tests.ui.fake_server import wait_until

ROOT = Path(__file__).parents[2]
STUB = Path(__file__).parent / "stub.py"
PROGRAM = """
import sys
from pathlib import Path
from demo.processes import Child, run_together
def child(name, port, *rest):
    ready = f"http://127.0.0.1:{port}/ready"
    return Child(name, [sys.executable, sys.argv[1], port, *rest], ready, Path(f"{name}.log"))
say = lambda text: print(text, flush=True)
pair = [child("server", sys.argv[2], "0.5", sys.argv[4]), child("page", sys.argv[3], "0")]
sys.exit(run_together(pair, say, lambda: say("READY"), stop_timeout_s=1.0))
"""


class Running:
    """The program, its ports and what it said."""

    def __init__(self, folder: Path, mode: str) -> None:
        self.folder, self.ports = folder, (free_port(), free_port())
        self.said = folder / "said"
        arguments = [str(STUB), *map(str, self.ports), mode]
        with self.said.open("w") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, *arguments],
                cwd=folder,
                stdout=said,
                stderr=said,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                start_new_session=True,
            )

    def says(self, text: str) -> bool:
        return text in self.said.read_text()

    def marks(self, kind: str) -> set[int]:
        return {int(path.stem) for path in self.folder.glob(f"*.{kind}")}

    def nothing_listens(self) -> bool:
        for port in self.ports:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return False
        return True


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    running: list[Running] = []

    @contextmanager
    def begin(mode: str = "") -> Iterator[Running]:
        running.append(Running(tmp_path, mode))
        yield running[-1]

    yield begin
    for one in running:
        if one.process.poll() is None:
            one.process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_being_asked_to_end_is_a_clean_end(start: Any, number: signal.Signals) -> None:
    with start() as demo:
        wait_until(lambda: demo.says("READY"), 20)
        assert demo.says("Loading the server")
        os.killpg(demo.process.pid, number)  # as a terminal does it: to the whole foreground group
        assert demo.process.wait(10) == 0
        assert demo.marks("ended") == set(demo.ports)
        assert demo.marks("interrupted") == set()  # children are ended in order, not hit by the terminal
        assert demo.nothing_listens()


def test_being_asked_while_the_engine_loads(start: Any) -> None:
    with start() as demo:
        wait_until(lambda: demo.marks("started") == set(demo.ports), 20)
        demo.process.send_signal(signal.SIGINT)
        assert demo.process.wait(10) == 0
        assert demo.nothing_listens()


def test_a_dying_child_stops_the_other(start: Any) -> None:
    with start("dies") as demo:
        assert demo.process.wait(20) == 1
        assert demo.says("The server ended with exit code 3") and demo.says("no memory left")
        assert demo.marks("ended") == {demo.ports[1]}
        assert demo.nothing_listens()


def test_a_child_that_will_not_end_is_killed(start: Any) -> None:
    with start("stubborn") as demo:
        wait_until(lambda: demo.says("READY"), 20)
        demo.process.send_signal(signal.SIGTERM)
        assert demo.process.wait(10) == 0
        assert demo.nothing_listens()


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> typer.Typer:
    (tmp_path / "config.json").touch()
    monkeypatch.setattr(demo.cli, "MODEL", tmp_path)
    monkeypatch.setattr(demo.cli, "run_together", lambda *_: pytest.fail("nothing must be started"))
    app = typer.Typer()
    app.command()(demo.cli.demo)
    return app


@pytest.mark.parametrize("option", ["--port", "--ui-port"])
def test_a_port_in_use_is_named_with_its_option(app: typer.Typer, option: str) -> None:
    ports = {"--port": free_port(), "--ui-port": free_port()}
    with socket.create_server(("127.0.0.1", ports[option])):
        arguments = [part for name, port in ports.items() for part in (name, str(port))]
        result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert f"Port {ports[option]} on 127.0.0.1" in result.output and f"with {option}." in result.output


def test_one_port_for_both_and_a_missing_checkpoint(app: typer.Typer, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["--port", "8001", "--ui-port", "8001"])
    assert result.exit_code == 2 and "cannot share port 8001" in result.output
    (tmp_path / "config.json").unlink()
    result = CliRunner().invoke(app, [])
    assert result.exit_code == 2 and "no config.json" in result.output


def test_the_command_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLLM_API_KEY", raising=False)
    monkeypatch.setenv("CLLM_API_KEYS", "one,two")
    server, page = children("0.0.0.0", 8000, 7860, None)
    assert server.command[:4] == [sys.executable, "-m", "cllm", "serve"]
    assert Path(server.command[4]).name == "model" and server.command[5:7] == ["--name", "demo"]
    assert server.ready_url == "http://127.0.0.1:8000/ready"
    assert page.command[3:6] == ["ui", "--api-url", "http://127.0.0.1:8000/v1"]
    assert page.env == {"CLLM_API_KEY": "one"} and "one" not in page.command
