"""Sequential domains: a run that starts from a controlled checkpoint, and what earlier runs said of its skills.

Either the checkpoint's own expansion goes on learning (`continue`), or its branches are folded into a plain model that
is expanded anew (`merge`). Folding weights is not what the model computed; the run scores what it starts from, so the
loss is in its report.
"""

import logging
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cllm_model import checkpoint
from cllm_model.config import ControlLLMConfig, Expansion
from cllm_model.families import FAMILIES
from cllm_model.mean_weights import report_of
from cllm_model.merge import merge
from training.methods import Continued, Control, Method
from training.recipe import Expansion as Section
from training.recipe import Recipe, RecipeError

log = logging.getLogger(__name__)


def resolved(recipe: Recipe) -> Recipe:
    """The recipe with the expansion that will train: of a run that continues, the checkpoint's.

    Raises:
        RecipeError: `base.sequential` does not fit the checkpoint, or the recipe does not fit its expansion.
        ValueError: The checkpoint is not valid.
    """
    path, mode = recipe.base.path, recipe.base.sequential
    if path is None:
        return recipe
    config = checkpoint.check(path, (*checkpoint.CONTROL_LLM_TYPES, *FAMILIES))
    controlled = isinstance(config, ControlLLMConfig)
    if controlled != (mode is not None):
        kind = "a controlled checkpoint: give `continue` or `merge`" if controlled else "a plain checkpoint"
        raise RecipeError(f"base.sequential = {mode!r}: {str(path)!r} is {kind}")
    if mode != "continue":
        return recipe
    assert isinstance(config, ControlLLMConfig)
    if "expansion" in recipe.model_fields_set:
        raise RecipeError("expansion: base.sequential 'continue' trains that of the checkpoint; leave it out")
    if recipe.rehearsal and recipe.rehearsal.gate:
        raise RecipeError(
            f"rehearsal.gate = {recipe.rehearsal.gate:g}: with base.sequential 'continue' it must be 0; it pulls "
            "towards the frozen base, which knows nothing of the skills learned since"
        )
    # The sections are checked against each other again, for they now speak of this expansion.
    try:
        return Recipe.model_validate({**dict(recipe), "expansion": Section(**_section(config.dual))})
    except ValidationError as error:
        raise RecipeError(f"base.path {str(path)!r}: {error.errors()[0]['msg']}") from error


def _section(dual: Expansion) -> dict[str, Any]:
    """A checkpoint's expansion as the recipe's section; layers are counted in the base."""
    layers = (*dual.expanded_layers, *dual.stacked_layers)
    return {
        "kind": dual.kind,
        "at": sorted({dual.base_index(layer) for layer in layers}),
        "method": dual.merge_method,
        "initial_factor": dual.interpolation_factor,
        "freeze_factor": dual.freeze_factor,
        "norm_alpha": dual.norm_alpha,
    }


def start(recipe: Recipe, scratch: Path) -> tuple[Path, Method]:
    """What a run with `base.path` trains from, and how: the directory that the method prepares its model from."""
    path = recipe.base.path
    assert path is not None
    if recipe.base.sequential == "continue":
        return path, Continued()
    if recipe.base.sequential == "merge":
        for sentence in merge(path, scratch / "merged").lost:
            log.warning("base %s, merged back: lost is %s", path, sentence)
        path = scratch / "merged"
    return path, Control(recipe.expansion)


def history(path: Path) -> list[dict[str, Any]]:
    """What became of each skill in the runs that led to a checkpoint, oldest first; from the report beside it.

    Returns:
        For each run `name`, `checkpoint`, `new` (the skill it taught, if one was scored) and `scores`, as trained.
    """
    report = report_of(path)
    if report is None:
        return []
    skills = report["skills"]
    this = {
        "name": report["recipe"]["name"],
        "checkpoint": report["checkpoint"],
        "new": next((skill["name"] for skill in skills if skill["kind"] == "new"), None),
        "scores": {skill["name"]: skill["scores"]["control"] for skill in skills},
    }
    return [*report.get("history", []), this]
