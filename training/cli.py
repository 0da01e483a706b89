"""Subcommand `cllm train`. Heavy imports wait for the call."""

from pathlib import Path
from typing import Annotated

import typer


def train(
    recipe: Annotated[Path, typer.Argument(help="Recipe, a YAML file.", show_default=False)],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Changes to the recipe, such as train.steps=100.", metavar="[KEY=VALUE]..."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Directory of the run, instead of the recipe's.", show_default=False)
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Check the recipe and its data, print it, what trains, memory and steps, and stop."
        ),
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an unfinished run, if there is one.")] = False,
    show_data: Annotated[
        int | None, typer.Option(min=1, help="Print so many rows with what is learned marked, and stop.")
    ] = None,
) -> None:
    """Expand a base model and train it on a new skill; writes DIR/model and DIR/report.json."""
    from cllm_model.checkpoint import CheckpointError
    from training.data import DataError
    from training.recipe import RecipeError, load

    loaded = load(recipe, overrides or [])
    if output is not None:
        loaded = loaded.model_copy(update={"output": output})

    if dry_run or show_data is not None:
        from training.plan import plan, shown_rows

        for text in plan(loaded, resume) if dry_run else shown_rows(loaded, show_data or 0):
            typer.echo(text)
        return
    from training import processes
    from training.run import run

    try:
        written = run(loaded, resume)
    except (RecipeError, DataError, CheckpointError):
        raise
    except ValueError as error:
        # The root command takes a ValueError for bad input (exit code 2); one from inside a training is a failure.
        raise RuntimeError(f"training failed: {error}") from error
    if not processes.is_first():
        return
    from training.report import read
    from training.report.summary import rows
    from training.table import show

    show(*rows([(loaded.name, read(written))]))
    typer.echo(f"{written.parent / 'model'} and {written}")
