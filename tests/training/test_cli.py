"""`cllm train` as a command: quick to import, clear about bad input, dry runs write nothing."""

import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner, Result

from training import run as run_module
from training.cli import train
from training.recipe import RecipeError


def call(*arguments: str) -> Result:
    app = typer.Typer()
    app.command()(train)
    return CliRunner().invoke(app, list(arguments))


def test_the_command_imports_neither_torch_nor_transformers() -> None:
    code = "import sys, training.cli; sys.exit(bool({'torch', 'transformers', 'pydantic'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[2]).returncode == 0


def test_dry_run_prints_the_whole_recipe_and_writes_nothing(recipe_file: Path, tmp_path: Path) -> None:
    result = call(str(recipe_file), "train.steps=9", "--output", str(tmp_path / "out"), "--dry-run")
    assert result.exit_code == 0, result.output
    shown, planned = yaml.safe_load_all(result.stdout)
    assert shown["train"]["steps"] == 9
    assert planned["steps"]["updates"] == 9
    assert planned["parameters"]["trainable"] < planned["parameters"]["frozen"]
    assert shown["train"]["weight_decay"] == 0.0
    assert shown["output"] == str(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_bad_input_is_a_value_error(recipe_file: Path) -> None:
    # The root command shows a ValueError's message and exits with 2.
    assert isinstance(call(str(recipe_file), "train.step=9").exception, RecipeError)
    assert isinstance(call(str(recipe_file), 'examples=[{skill: add, content: ["0", "0"]}]').exception, RecipeError)


def test_a_value_error_from_inside_is_a_failure(recipe_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(recipe: object, resume: bool) -> None:
        raise ValueError("shape mismatch")

    monkeypatch.setattr(run_module, "run", fail)
    assert isinstance(call(str(recipe_file)).exception, RuntimeError)


def test_a_run_ends_with_a_table_of_scores(recipe_file: Path, tmp_path: Path) -> None:
    result = call(str(recipe_file), "rehearsal=null", "--output", str(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert all(name in lines[0] for name in ("skill", "base", "Control LLM"))
    assert len([line for line in lines[1:] if "[" in line]) == 3  # each skill with intervals
    assert (tmp_path / "out" / "report.json").is_file()
