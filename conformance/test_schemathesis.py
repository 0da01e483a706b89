"""schemathesis on the server's own OpenAPI document: right and wrong data for every route, with its default checks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conformance.conftest import KEY, ROOT

OURS = ROOT / "conformance"
TIMEOUT_S = 1200  # of a busy machine


@pytest.mark.timeout(TIMEOUT_S)
def test_every_route_keeps_to_the_document(server, tmp_path):
    """Its own report goes to the terminal: what was asked, what was found, and what was left out."""
    command = [Path(sys.executable).parent / "schemathesis", "--config-file", OURS / "schemathesis.toml"]
    arguments = ["run", f"{server.root}/openapi.json", "--header", f"Authorization: Bearer {KEY}"]
    hooks = {"SCHEMATHESIS_HOOKS": str(OURS / "hooks.py")}
    run = subprocess.run([*command, *arguments], env=os.environ | hooks, cwd=tmp_path, timeout=TIMEOUT_S)
    assert run.returncode == 0
