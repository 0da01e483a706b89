"""What `--dry-run` prints: the recipe, what trains, steps, memory, data. It needs no weights, and no accelerator."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import yaml
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from cllm_model.modeling import ControlLLMForCausalLM
from training import data, machine, material, memory, processes, sequential, trunk
from training.architecture import base_config, expanded_config
from training.arguments import micro_batch
from training.methods import trainable_parameters
from training.recipe import Recipe, RecipeError
from training.run import prepare
from training.tokenizer import character_tokenizer
from training.trunk_cache import Documents, Visits, documents_of


def plan(recipe: Recipe, resume: bool = False) -> Iterator[str]:
    """Yield the recipe and the plan, two YAML documents.

    Raises:
        RecipeError: the recipe does not fit what is on disk.
        DataError: a data file cannot be used.
    """
    has_weights = recipe.base.path is None or any(recipe.base.path.glob("*.safetensors"))
    if has_weights:
        recipe = sequential.resolved(recipe)
    prepare(recipe, resume)
    model = described(recipe)
    tokens, facts, visits = _data(recipe)
    train = recipe.train
    trained, whole = trainable_parameters(model), sum(parameter.numel() for parameter in model.parameters())
    estimate = memory.estimate(model, recipe, tokens, processes.count())
    found: dict[str, Any] = {
        "parameters": {"trainable": trained, "frozen": whole - trained, "trainable_share": round(trained / whole, 4)},
        "steps": {
            "updates": train.steps,
            "examples_per_update": train.batch_size,
            "processes": processes.count(),
            "micro_batches_per_process": train.accumulation,
            "examples_per_micro_batch": micro_batch(train),
            "most_tokens_per_micro_batch": tokens,
            "checkpoints": 0 if train.save_every is None else -(-train.steps // train.save_every),
        },
        "memory_gib_per_device": {
            name: round(value / memory.GIB, 3) for name, value in (asdict(estimate) | {"total": estimate.total}).items()
        },
        "trunk_cache": _trunk(model, recipe, visits),
        "data": facts,
    }
    if not has_weights:
        found["base"] = "config.json only, no weights: it can be planned with, not trained"
    try:
        machine.check(recipe)
    except RecipeError as error:
        found["machine"] = f"it can be planned here, not trained: {error}"
    yield yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)
    yield "---\n# memory is an estimate, see training/memory.py for its formula"
    yield yaml.safe_dump(found, sort_keys=False, width=1000)


def described(recipe: Recipe) -> ControlLLMForCausalLM:
    """The model that a recipe trains, without its numbers; `requires_grad` says what trains."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(expanded_config(recipe))
    assert isinstance(model, ControlLLMForCausalLM)
    model.freeze_pretrained()
    if recipe.train.freeze_interpolators:
        model.freeze_interpolators()
    return model


def _tokenizer(recipe: Recipe) -> PreTrainedTokenizerBase:
    if recipe.base.path is None:
        assert recipe.base.make is not None
        return character_tokenizer(recipe.base.make.context)
    return data.load_tokenizer(recipe.base.path, None if recipe.data is None else recipe.data.chat_template)


def _data(recipe: Recipe) -> tuple[int, list[str], Visits]:
    """The most tokens of a micro-batch, what is learned from, in lines, and how often it is gone through."""
    train, context = recipe.train, base_config(recipe).max_position_embeddings
    with TemporaryDirectory() as cache:
        if recipe.sources is None:
            rows, _ = material.rows(recipe, train, context, _tokenizer(recipe), Path(cache))
            longest = max(len(row) for row in rows["input_ids"])
            line = f"{recipe.new}: generated, {len(rows):,} examples"
            return longest * micro_batch(train), [line], Documents(documents_of(rows)).visits
        corpus = data.load(recipe.sources, _tokenizer(recipe), context, Path(cache))
        passes = corpus.passes(train.steps * train.batch_size, recipe.seed)
        counted = list(zip(corpus.facts, passes, strict=True))
        lines = [f"{data.describe(facts)}; gone through {times:.2f} times" for facts, times in counted]
        visits = Visits.of((facts.tokens, times) for facts, times in counted)
        return corpus.max_length * micro_batch(train), lines, visits


def _trunk(model: ControlLLMForCausalLM, recipe: Recipe, learned: Visits) -> dict[str, str]:
    """What would be kept of the layers below the expansion; what is rehearsed has at most so many tokens."""
    sources = {"data": learned}
    if (settings := recipe.rehearsal) is not None:
        times = recipe.train.steps * settings.batch_size / settings.sequences
        sources["rehearsal"] = Visits(settings.sequences * settings.max_tokens, times)
    return {name: str(choice) for name, choice in trunk.choose(model, recipe, sources, recipe.output).items()}


def shown_rows(recipe: Recipe, count: int) -> Iterator[str]:
    """Yield the first rows of a training as people can read them, what is learned marked.

    Raises:
        DataError: a data file cannot be used.
    """
    tokenizer, context = _tokenizer(recipe), base_config(recipe).max_position_embeddings
    with TemporaryDirectory() as cache:
        rows, _ = material.rows(recipe, recipe.train, context, tokenizer, Path(cache))
        yield from data.preview(rows, tokenizer, count)
