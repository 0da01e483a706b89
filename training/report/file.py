"""A report's file, and what is the same in every run: time, environment, commit of the code."""

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from pydantic import ValidationError

from training.report.schema import Report

NAME = "report.json"
_PACKAGES = ("torch", "transformers", "trl", "accelerate", "datasets", "tokenizers")


def now() -> str:
    """The time of day in ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def environment() -> dict[str, str]:
    """Versions of what computed the numbers, and the machine's kind."""
    machine = {"platform": platform.platform(), "machine": platform.machine(), "cpus": str(os.cpu_count())}
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}, **machine}


def git_commit() -> str | None:
    """The commit of the code that runs, marked where files differ from it; None where it is not in a checkout."""
    here = Path(__file__).parent
    commit = _git(here, "rev-parse", "HEAD")
    # An installed copy inside somebody else's checkout is none of that checkout's files.
    if commit is None or not _git(here, "ls-files", "--error-unmatch", Path(__file__).name):
        return None
    return f"{commit} with changes" if _git(here, "status", "--porcelain", "--untracked-files=no") else commit


def _git(directory: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(directory), *arguments], capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def write(report: Report, path: Path) -> None:
    """Write the report beside its place, then rename it."""
    write_text(json.dumps(report.model_dump(by_alias=True), indent=1) + "\n", path)


def write_text(text: str, path: Path) -> None:
    """Write a file for everybody to read, beside its place, then rename it."""
    beside = path.with_name(f".{path.name}.part")
    beside.write_text(text, encoding="utf-8")
    beside.chmod(0o644)
    beside.replace(path)


def read(path: Path) -> Report:
    """Read a report, or that of a run's directory, and check it.

    Raises:
        ValueError: There is none, or it is not of this form; names file and field.
    """
    file = path / NAME if path.is_dir() else path
    try:
        return Report.model_validate_json(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"report {file}: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise ValueError(f"report {file}: {field}: {first['msg']}") from error
