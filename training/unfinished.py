"""The directory of a run that is not finished: what its stages leave for the next ones, and for a run that goes on.

It lies in the run's output directory, with the recipe as it was at the start, and is removed when the run is done. A
run that fails leaves it only if it holds checkpoints to go on from.
"""

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from training import processes
from training.recipe import Recipe, RecipeError
from training.report.differences import differences

log = logging.getLogger(__name__)
_RECIPE = "recipe.json"


def directory_of(recipe: Recipe) -> Path:
    """Where an unfinished run of a recipe is."""
    return recipe.output / "unfinished"


def check(recipe: Recipe, resume: bool) -> None:
    """Check that a run can begin, or go on.

    Raises:
        RecipeError: There is an unfinished run and `resume` is not said, or it is of another recipe.
    """
    directory = directory_of(recipe)
    started = directory / _RECIPE
    if not resume:
        if directory.exists():
            raise RecipeError(f"output = {str(recipe.output)!r}: it holds an unfinished run; go on with --resume")
    elif started.exists():
        for field, (before, now) in differences(json.loads(started.read_text()), _comparable(recipe)).items():
            raise RecipeError(f"{field} = {now}: the unfinished run in {str(recipe.output)!r} has {before}")
    else:
        log.info("there is nothing to resume in %s: starting anew", recipe.output)


@contextmanager
def unfinished(recipe: Recipe) -> Iterator[Path]:
    """Give the directory, new or as an earlier attempt left it; all processes share it."""
    directory = directory_of(recipe)
    with processes.first_before_others():
        directory.mkdir(parents=True, exist_ok=True)
        if not (directory / _RECIPE).exists():
            beside = directory / f".{_RECIPE}"
            beside.write_text(json.dumps(_comparable(recipe)))
            beside.rename(directory / _RECIPE)
    try:
        yield directory
    except BaseException:
        if processes.is_first() and recipe.train.save_every is None:
            shutil.rmtree(directory, ignore_errors=True)
        raise
    processes.wait()
    if processes.is_first():
        shutil.rmtree(directory)


def _comparable(recipe: Recipe) -> dict[str, object]:
    return recipe.model_dump(mode="json", exclude={"output"})
