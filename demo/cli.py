"""`cllm demo`: starts the server with the shipped checkpoint and the comparison page, and ends both together.

Knows the command lines of `cllm serve` and `cllm ui`, and imports neither.
"""

import os
import shutil
import socket
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from demo.processes import Child, run_together

MODEL = Path(__file__).parent / "model"
NAME = "demo"
ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # listening everywhere: reached over the loopback


def demo(
    port: Annotated[int, typer.Option(envvar="CLLM_PORT", min=1, max=65535, help="Port of the server.")] = 8000,
    ui_port: Annotated[int, typer.Option(envvar="CLLM_UI_PORT", min=1, max=65535, help="Port of the page.")] = 7860,
    host: Annotated[
        str, typer.Option(envvar="CLLM_HOST", help="Address that server and page listen on.")
    ] = "127.0.0.1",
    verbose: Annotated[
        bool, typer.Option("--verbose", envvar="CLLM_VERBOSE", help="Show the output of server and page.")
    ] = False,
) -> None:
    """Serve the shipped checkpoint and open the page that compares it with its base."""
    problem = _problem(host, port, ui_port)
    if problem:
        typer.echo(problem, err=True)
        raise typer.Exit(2)
    logs = None if verbose else Path(tempfile.mkdtemp(prefix="cllm-demo-"))
    server, page = children(host, port, ui_port, logs)
    if logs:
        typer.echo(f"Starting server and page; their output goes to {logs}", err=True)

    def announce() -> None:
        typer.echo(f"\n  Page    {page.ready_url}\n  Server  {_root(host, port)}/v1\n\nCtrl-C stops both.")

    code = run_together([server, page], lambda line: typer.echo(line, err=True), announce)
    if logs and code == 0:
        shutil.rmtree(logs, ignore_errors=True)
    elif logs:
        typer.echo(f"The whole output is in {logs}", err=True)
    raise typer.Exit(code)


def children(host: str, port: int, ui_port: int, logs: Path | None) -> list[Child]:
    """The two processes: the server with its engine, and the page."""
    cllm = [sys.executable, "-m", "cllm"]
    root = _root(host, port)
    serve = [*cllm, "serve", str(MODEL), "--name", NAME, "--host", host, "--port", str(port)]
    ui = [*cllm, "ui", "--api-url", f"{root}/v1", "--host", host, "--port", str(ui_port)]
    # A guarded server: the page uses the first key unless it was given one of its own.
    keys = os.environ.get("CLLM_API_KEYS", "").split(",")
    env = {"CLLM_API_KEY": os.environ.get("CLLM_API_KEY") or keys[0].strip()}
    return [
        Child("server", serve, f"{root}/ready", logs and logs / "server.log"),
        Child("page", ui, _root(host, ui_port), logs and logs / "page.log", env),
    ]


def _root(host: str, port: int) -> str:
    name = ANYWHERE.get(host, host)
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def _problem(host: str, port: int, ui_port: int) -> str | None:
    """Why the demo cannot start, before anything slow is started."""
    if not (MODEL / "config.json").is_file():
        return f"The demo checkpoint is missing: there is no config.json in {MODEL}."
    if port == ui_port:
        return f"Server and page cannot share port {port}: choose another with --port or --ui-port."
    for number, option in ((port, "--port"), (ui_port, "--ui-port")):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, number))
            except OSError as error:
                reason = error.strerror or error
                return f"Port {number} on {host} cannot be used ({reason}): choose another with {option}."
    return None
