"""The commands of README and handbook do what they say: those marked `run` are run, page by page, as a reader would.

A block of a shell or of Python stands behind a comment, `<!-- run -->` or `<!-- not run: WHY -->`. The blocks of a page
run in one shell, in a directory that has only what the repository has; servers run on until the page ends.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.serving import environment, free_port

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^(?:<!-- (?P<mark>[^\n]*) -->\n)?```(?P<kind>bash|python)\n(?P<text>.*?)^```$", re.M | re.S)
SERVER = re.compile(r"^cllm (serve|ui)\b(?!.*--check)(.*)$", re.M)
PORTS = {"8000": "CLLM_PORT", "7860": "CLLM_UI_PORT"}
# A foreground server of the page becomes a background one that is waited for, and must end well.
PRELUDE = """
set -euo pipefail
started=()
start() {
  cllm "$@" & started+=($!)
  local url; case $1 in serve) url=http://127.0.0.1:$CLLM_PORT/ready;; ui) url=http://127.0.0.1:$CLLM_UI_PORT/;; esac
  until curl --silent --fail --output /dev/null "$url"; do kill -0 $!; sleep 0.5; done
}
finish() {
  local code=$?
  for server in "${started[@]}"; do kill -TERM "$server"; wait "$server" || code=$?; done
  exit $code
}
trap finish EXIT
"""


class Block(NamedTuple):
    line: int
    mark: str
    kind: str
    text: str

    @property
    def runs(self) -> bool:
        return self.mark == "run"


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    return [
        Block(text[: found.start()].count("\n") + 1, found["mark"] or "", found["kind"], found["text"])
        for found in BLOCK.finditer(text)
    ]


def script(page: Path, ports: dict[str, str]) -> str:
    parts = [PRELUDE]
    for block in blocks(page):
        if block.runs and block.kind == "python":
            parts.append(f"python3 - <<'END_OF_BLOCK'\n{block.text}END_OF_BLOCK\n")
        elif block.runs:
            parts.append(SERVER.sub(r"start \1\2", block.text))
    text = "\n".join(parts)
    for documented, variable in PORTS.items():
        text = text.replace(f"127.0.0.1:{documented}", f"127.0.0.1:{ports[variable]}")
    return text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_is_run_or_says_why_not(page):
    for block in blocks(page):
        assert block.runs or re.fullmatch(r"not run: .+", block.mark), f"{page.name}:{block.line}"


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(map(Block.runs.fget, blocks(page)))], ids=lambda p: p.name
)
def test_commands(page, tmp_path):
    for name in ("demo", "training", "benchmarks", "tests", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    ports = {variable: str(free_port()) for variable in PORTS.values()}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script(page, ports)],
        cwd=tmp_path, env=environment(PATH=path, VLLM_CPU_KVCACHE_SPACE="1", **ports),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
