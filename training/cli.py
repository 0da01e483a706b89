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
        bool, typer.Option("--dry-run", help="Check the recipe and its data, print it in full, and stop.")
    ] = False,
) -> None:
    """Expand a base model and train it on a new skill; writes DIR/model and DIR/report.json."""
    import yaml

    from cllm_model.checkpoint import CheckpointError
    from training.data import DataError
    from training.recipe import RecipeError, load

    loaded = load(recipe, overrides or [])
    if output is not None:
        loaded = loaded.model_copy(update={"output": output})

    from training.run import prepare, run

    if dry_run:
        prepare(loaded)
        typer.echo(yaml.safe_dump(loaded.model_dump(mode="json"), sort_keys=False), nl=False)
        return
    try:
        written = run(loaded)
    except (RecipeError, DataError, CheckpointError):
        raise
    except ValueError as error:
        # The root command takes a ValueError for bad input (exit code 2); one from inside a training is a failure.
        raise RuntimeError(f"training failed: {error}") from error
    from training.report import read

    finished = read(written)
    typer.echo(f"{'skill':<12}{'base':>8}{'control':>9}{'full FT':>9}")
    for skill in finished.skills:
        tuned = skill.scores.full_fine_tuning
        shown = "-" if tuned is None else f"{tuned:.3f}"
        typer.echo(f"{skill.name:<12}{skill.scores.base:>8.3f}{skill.scores.control:>9.3f}{shown:>9}")
    typer.echo(f"{written.parent / 'model'} and {written}")
