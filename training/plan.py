"""What `--dry-run` prints: the recipe, what trains, steps, memory, data. The base needs no weights for it."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import yaml
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from cllm_model import checkpoint
from cllm_model.config import ControlLLMConfig, Expansion
from cllm_model.families import FAMILIES
from cllm_model.modeling import ControlLLMForCausalLM
from cllm_model.placement import choose_sites, place
from training import data, material, memory, processes, sequential
from training.arguments import micro_batch
from training.base import made_config
from training.methods import trainable_parameters
from training.recipe import Recipe
from training.run import prepare
from training.tokenizer import character_tokenizer


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
    tokens, facts = _data(recipe)
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
        "data": facts,
    }
    if not has_weights:
        found["base"] = "config.json only, no weights: it can be planned with, not trained"
    yield yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)
    yield "---\n# memory is an estimate, see training/memory.py for its formula"
    yield yaml.safe_dump(found, sort_keys=False, width=1000)


def described(recipe: Recipe) -> PreTrainedModel:
    """The model that a recipe trains, without its numbers; `requires_grad` says what trains."""
    config = base_config(recipe)
    if recipe.base.sequential == "continue":
        expanded = config
    else:
        plain = config.base_config() if isinstance(config, ControlLLMConfig) else config
        chosen = recipe.expansion
        sites = chosen.layers if chosen.at is None else chosen.at
        assert sites is not None
        dual, stacked = place(chosen.kind, choose_sites(sites, plain.num_hidden_layers))
        expansion = Expansion(
            dual, chosen.method, chosen.kind, stacked, chosen.initial_factor, chosen.freeze_factor, chosen.norm_alpha
        )
        expanded = ControlLLMConfig.from_base(plain, expansion)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(expanded)
    assert isinstance(model, ControlLLMForCausalLM)
    model.freeze_pretrained()
    if recipe.train.freeze_interpolators:
        model.freeze_interpolators()
    return model


def base_config(recipe: Recipe) -> PreTrainedConfig:
    """The configuration of the base; of one made here, that of the model to be made."""
    if recipe.base.path is None:
        assert recipe.base.make is not None
        return made_config(recipe.base.make, character_tokenizer(recipe.base.make.context))
    return checkpoint.read_config(recipe.base.path, (*checkpoint.CONTROL_LLM_TYPES, *FAMILIES))


def _tokenizer(recipe: Recipe) -> PreTrainedTokenizerBase:
    if recipe.base.path is None:
        assert recipe.base.make is not None
        return character_tokenizer(recipe.base.make.context)
    return data.load_tokenizer(recipe.base.path, None if recipe.data is None else recipe.data.chat_template)


def _data(recipe: Recipe) -> tuple[int, list[str]]:
    """The most tokens of a micro-batch, and what is learned from, in lines."""
    train, context = recipe.train, base_config(recipe).max_position_embeddings
    if recipe.sources is None:
        with TemporaryDirectory() as cache:
            rows, _ = material.rows(recipe, train, context, _tokenizer(recipe), Path(cache))
        longest = max(len(row) for row in rows["input_ids"])
        return longest * micro_batch(train), [f"{recipe.new}: generated, {len(rows):,} examples"]
    with TemporaryDirectory() as cache:
        corpus = data.load(recipe.sources, _tokenizer(recipe), context, Path(cache))
        passes = corpus.passes(train.steps * train.batch_size, recipe.seed)
        lines = [
            f"{data.describe(facts)}; gone through {times:.2f} times"
            for facts, times in zip(corpus.facts, passes, strict=True)
        ]
        return corpus.max_length * micro_batch(train), lines


def shown_rows(recipe: Recipe, count: int) -> Iterator[str]:
    """Yield the first rows of a training as people can read them, what is learned marked.

    Raises:
        DataError: a data file cannot be used.
    """
    tokenizer, context = _tokenizer(recipe), base_config(recipe).max_position_embeddings
    with TemporaryDirectory() as cache:
        rows, _ = material.rows(recipe, recipe.train, context, tokenizer, Path(cache))
        yield from data.preview(rows, tokenizer, count)
