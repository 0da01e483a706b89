"""The handbook lists what `--help` lists: the page's options with variables and defaults, the server's by name."""

import os
import re
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"
HELP = re.compile(r"(--[a-z-]+) +\S.*?(?:\[env var: (\w+)\])(?: +\[default: (\S+)\])?")
ROW = re.compile(r"^\| `(--[a-z-]+)`[^|]*\| `(\w+)`[^|]*\| (\S*) *\|", re.M)


def options(command: str) -> list[tuple[str, str, str]]:
    """Name, variable and default of each option in a command's help."""
    wide = {**os.environ, "COLUMNS": "400"}  # one option a line
    done = subprocess.run(
        [sys.executable, "-m", "cllm", command, "--help"], capture_output=True, text=True, check=True, env=wide
    )
    return HELP.findall(done.stdout)


def test_the_page_s_options() -> None:
    assert len(listed := options("ui")) == 8
    assert sorted(ROW.findall((DOCS / "page.md").read_text())) == sorted(listed)


def test_the_server_s_options() -> None:
    documented = set(re.findall(r"`(--[a-z-]+)`", (DOCS / "serving.md").read_text()))
    assert "--ui" in (listed := {name for name, _, _ in options("serve")})
    assert listed - documented == set()
