"""Whether this machine, with so many processes, can train what a recipe says. Allocates nothing and reads no data."""

from collections.abc import Iterator

from transformers.utils import is_flash_attn_2_available, is_kernels_available

from training import processes
from training.arguments import micro_batch
from training.distributed import sharding_arguments
from training.recipe import Recipe, RecipeError, Train


def check(recipe: Recipe) -> None:
    """Refuse what would fail here once the base is made, has written what is rehearsed, or has been trained.

    Raises:
        RecipeError: names the section, the field and the value.
    """
    for name, section in _sections(recipe):
        try:
            micro_batch(section)
            sharding_arguments(section)
            if section.attention == "flash_attention_2" and not (is_flash_attn_2_available() or is_kernels_available()):
                raise RecipeError(
                    "train.attention = 'flash_attention_2': the package flash-attn is not installed; use 'sdpa'"
                )
        except RecipeError as error:
            raise RecipeError(f"{name}{error}") from error
    parts = recipe.train.accumulation * processes.count()
    if recipe.rehearsal is not None and recipe.rehearsal.batch_size % parts:
        raise RecipeError(
            f"rehearsal.batch_size = {recipe.rehearsal.batch_size}: not a multiple of {processes.count()} processes "
            f"times train.accumulation ({recipe.train.accumulation})"
        )


def _sections(recipe: Recipe) -> Iterator[tuple[str, Train]]:
    """Everything that a run optimises, each with what its name in the recipe has before `train`."""
    if recipe.base.path is None and recipe.base.make is not None:
        for number, stage in enumerate(recipe.base.make.stages):
            yield f"base.make.stages.{number}.", stage.train
    yield "", recipe.train
    for name, baseline in recipe.baselines.all.items():
        yield f"baselines.others.{name}.", baseline.train
