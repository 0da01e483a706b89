"""What one optimisation learns from: the rows of a recipe's data or demo skill, in training order."""

import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from training import data
from training.recipe import Data, FileSkill, Recipe, RecipeError, Source, Train


def rows(
    recipe: Recipe, train: Train, context: int, tokenizer: PreTrainedTokenizerBase, cache: Path, replay: float = 0.0
) -> tuple[Dataset, dict[str, Any]]:
    """Return the rows, a pure function of recipe and section, and what is to be said of them in the report.

    Args:
        recipe: Names the data, or the demo skill.
        train: Says how many rows make an update, and how many updates there are.
        context: The longest sequence that the base takes, in tokens.
        tokenizer: Its tokenizer.
        cache: Directory for encoded files.
        replay: Share of the examples that is replaced by stored examples of the original skills.

    Raises:
        DataError: A file cannot be used; names file and line.
        RecipeError: There are no stored examples to replay.
    """
    count = train.steps * train.batch_size
    if recipe.sources is None:
        assert isinstance(recipe.new, str)
        chats = data.draw(recipe.new, "train", count, recipe.seed)
        if replay:
            chats = _mixed(chats, recipe, replay)
        return data.dataset(tokenizer, chats, train.batch_size, seed=recipe.seed), {"generated": recipe.new}
    settings = _with_originals(recipe.sources, recipe, replay) if replay else recipe.sources
    corpus = data.load(settings, tokenizer, context, cache)
    passes = corpus.passes(count, recipe.seed)
    facts = [asdict(found) | {"passes": times} for found, times in zip(corpus.facts, passes, strict=True)]
    return corpus.rows(count, train.batch_size, recipe.seed), {"sources": facts}


def _mixed(chats: list[data.Chat], recipe: Recipe, replay: float) -> list[data.Chat]:
    """The examples, a random share of them replaced by examples of demo skills."""
    rng = random.Random(f"{recipe.seed}/replay")
    weights: dict[str, float] = {source: 1.0 for source in recipe.originals if isinstance(source, str)}
    if len(weights) < len(recipe.originals):
        raise RecipeError("replay: beside a generated skill, only generated originals can be replayed")
    old = iter(data.mixture(weights, len(chats), recipe.seed + 1))
    return [next(old) if rng.random() < replay else chat for chat in chats]


def _with_originals(settings: Data, recipe: Recipe, replay: float) -> Data:
    """The data with the originals' own files as further sources, which together get the share."""
    files = [source.train for source in recipe.originals if isinstance(source, FileSkill) and source.train]
    if len(files) < len(recipe.originals):
        raise RecipeError("replay: each of `originals` needs a `train` file")
    total = sum(source.weight for source in settings.sources)
    weight = total * replay / (1 - replay) / len(files)
    sources = [*settings.sources, *(Source(path=file, weight=weight) for file in files)]
    return settings.model_copy(update={"sources": sources})
