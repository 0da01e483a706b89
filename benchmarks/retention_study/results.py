"""Finished runs, one a line: appended as each ends, so that a study that was cut off goes on where it was."""

import dataclasses
import hashlib
import json
import os
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from retention_study.run import Setup


def read(file: Path) -> dict[Setup, dict[str, Any]]:
    """Return the results in a file; a line that was cut off in the middle counts as not run."""
    found: dict[Setup, dict[str, Any]] = {}
    for line in file.read_text().splitlines() if file.exists() else ():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        found[Setup(**record["setup"])] = record["result"]
    return found


def append(file: Path, setup: Setup, result: dict[str, Any]) -> None:
    """Add one result."""
    record = {
        "key": setup.key,
        "setup": dataclasses.asdict(setup),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "code": _code(),
        "result": result,
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    # One write of a whole line: two processes may work on one study.
    with file.open("a") as lines:
        os.write(lines.fileno(), (json.dumps(record) + "\n").encode())


@cache
def _code() -> str:
    """A hash of the sources that make a result."""
    root = Path(__file__).parents[2]
    folders = (root / "cllm_model", root / "training", Path(__file__).parent)
    digest = hashlib.sha256()
    for file in sorted(file for folder in folders for file in folder.rglob("*.py")):
        digest.update(file.relative_to(root).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()[:12]
