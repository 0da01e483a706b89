"""A whole run: base -> expand -> train -> score -> baseline -> report. What it leaves is whole or not there at all."""

import logging
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from cllm_model import checkpoint
from cllm_model.divergence import Divergence
from cllm_model.expand import expand
from cllm_model.modeling import ControlLLMForCausalLM
from cllm_model.placement import choose_sites
from training import data, evaluate, rehearsal, report, skills
from training.base import make_base
from training.baseline import full_fine_tuning
from training.recipe import FileSkill, Recipe, RecipeError
from training.trainer import ControlTrainer, sft_config

log = logging.getLogger(__name__)
RELOAD_TOLERANCE = 1e-5


@dataclass
class _Run:
    """What the stages of one run hand on to each other."""

    recipe: Recipe
    scratch: Path
    cpu_seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        log.info("%s ...", name)
        start = time.process_time()
        yield
        self.cpu_seconds[name] = round(time.process_time() - start, 1)
        log.info("%s: %s CPU seconds", name, self.cpu_seconds[name])


def run(recipe: Recipe) -> Path:
    """Carry out a recipe; returns the report's path. `OUT/model` appears when everything is done.

    Raises:
        RecipeError: the recipe does not fit what is on disk.
        DataError: a data file cannot be used.
    """
    tests = prepare(recipe)
    out = recipe.output
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch, checkpoint.write_beside(out / "model") as beside:
        found = _stages(_Run(recipe, Path(scratch)), tests, beside)
    found.checkpoint = checkpoint.checkpoint_hash(out / "model")
    found.training.seconds = round(time.monotonic() - started, 1)
    report.write(found, out / "report.json")
    return out / "report.json"


def prepare(recipe: Recipe) -> dict[str, list[data.Chat]]:
    """Check what a recipe refers to, and return the evaluation prompts of each skill, the new one last."""
    if (recipe.output / "model").exists():
        raise RecipeError(f"output = {str(recipe.output)!r}: it holds a model already; choose another with --output")
    if recipe.base.path is not None:
        depth = checkpoint.check_base(recipe.base.path).num_hidden_layers
    else:
        assert recipe.base.make is not None
        depth = recipe.base.make.layers
    try:
        choose_sites(_sites(recipe), depth)
    except ValueError as error:
        raise RecipeError(f"expansion.{error}") from error
    for example in recipe.examples:
        skill = skills.SKILLS[example.skill]
        if example.wording >= len(skill.wordings):
            raise RecipeError(f"examples: skill {skill.name!r} has wordings 0 to {len(skill.wordings) - 1}")
        if skills.split_of(skill, tuple(example.content)) != "test":
            raise RecipeError(f"examples: {example.content} of skill {skill.name!r} is not in the test split")
    chosen = recipe.evaluation
    tests = {
        _name(source): data.held_out(source, chosen.split, chosen.prompts, recipe.seed)
        for source in (*recipe.originals, recipe.new)
    }
    if isinstance(recipe.new, FileSkill):
        assert recipe.new.train is not None
        data.read_jsonl(recipe.new.train)
    return tests


def _sites(recipe: Recipe) -> int | list[int]:
    """The base's layers to copy: their number, or a list."""
    chosen = recipe.expansion
    if chosen.at is not None:
        return chosen.at
    assert chosen.layers is not None
    return chosen.layers


def _name(source: str | FileSkill) -> str:
    return source if isinstance(source, str) else source.name


def _label(source: str | FileSkill) -> str:
    return skills.SKILLS[source].label if isinstance(source, str) else source.label or source.name


def _stages(state: _Run, tests: dict[str, list[data.Chat]], beside: Path) -> report.Report:
    recipe = state.recipe
    base_dir, base_curve = _base(state)
    tokenizer = AutoTokenizer.from_pretrained(base_dir)
    examples = [skills.SKILLS[e.skill].example(tuple(e.content), e.wording) for e in recipe.examples]
    example_chats = [data.chat(example) for example in examples]
    models: dict[str, PreTrainedModel] = {"base": AutoModelForCausalLM.from_pretrained(base_dir)}

    config = recipe.train
    with state.stage("data"):
        drawn = data.draw(recipe.new, "train", config.steps * config.batch_size, recipe.seed)
        rows = data.dataset(tokenizer, drawn, config.batch_size, seed=recipe.seed)
    chosen = recipe.expansion
    expand(
        base_dir,
        state.scratch / "dual",
        _sites(recipe),
        chosen.method,
        chosen.initial_factor,
        chosen.kind,
        chosen.freeze_factor,
        chosen.norm_alpha,
    )
    dual = ControlLLMForCausalLM.from_pretrained(state.scratch / "dual")
    trainer, samples = _train(state, dual, tokenizer, rows)
    models["control"] = dual

    facts = None
    if (baseline := recipe.baselines.full_fine_tuning) is not None:
        with state.stage("full fine-tuning"):
            checks = data.held_out(recipe.new, "validation", baseline.check_prompts, recipe.seed)
            target = _score(recipe, dual, tokenizer, checks)
            drawn = data.draw(recipe.new, "train", baseline.steps * baseline.batch_size, recipe.seed)
            rows = data.dataset(tokenizer, drawn, baseline.batch_size, seed=recipe.seed)
            models["full_fine_tuning"], facts = full_fine_tuning(
                base_dir,
                tokenizer,
                rows,
                baseline,
                lambda model: _score(recipe, model, tokenizer, checks),
                target,
                recipe.seed,
                state.scratch,
            )
    with state.stage("evaluation"):
        scores = {
            name: {model: _score(recipe, models[model], tokenizer, chats) for model in models}
            for name, chats in tests.items()
        }
        given = {model: _answers(recipe, models[model], tokenizer, example_chats) for model in models}
    checks_made = _write_checked(dual, models["base"], tokenizer, list(tests.values()), beside)
    return report.Report(
        schema=1,
        created=report.now(),
        checkpoint="0" * 12,
        split=recipe.evaluation.split,
        skills=[
            report.SkillReport(
                name=_name(source),
                kind="new" if source is recipe.new else "original",
                label=_label(source),
                prompts=len(tests[_name(source)]),
                scores=report.Scores(**scores[_name(source)]),
            )
            for source in (*recipe.originals, recipe.new)
        ],
        examples=[
            report.ExampleReport(
                skill=example.skill,
                prompt=example.prompt,
                expected=example.answer,
                answers=report.Answers(**{model: found[i] for model, found in given.items()}),
            )
            for i, example in enumerate(examples)
        ],
        training=report.TrainingReport(
            steps=trainer.state.global_step,
            base_reused=recipe.base.path is not None and recipe.base.make is not None,
            seconds=0.0,
            cpu_seconds=state.cpu_seconds,
            trainable_parameters=sum(p.numel() for p in dual.parameters() if p.requires_grad),
            frozen_parameters=sum(p.numel() for p in dual.parameters() if not p.requires_grad),
            loss_curve=[entry for entry in trainer.state.log_history if "loss" in entry],
            base_loss_curve=base_curve,
            layers=_layers(dual, tokenizer, tests),
            rehearsal_samples=samples,
            full_fine_tuning=facts,
        ),
        checks=checks_made,
        recipe=_shareable(recipe),
        environment=report.environment(),
    )


def _shareable(recipe: Recipe) -> dict[str, Any]:
    """The recipe without the directories of the machine it ran on."""
    tree = recipe.model_dump(mode="json", exclude={"output"})
    if tree["base"]["path"] is not None:
        tree["base"]["path"] = None if recipe.base.make else Path(tree["base"]["path"]).name
    return tree


def _base(state: _Run) -> tuple[Path, list[dict[str, float]]]:
    made = state.recipe.base.make
    if state.recipe.base.path is not None:
        return state.recipe.base.path, []
    assert made is not None
    named = [source for source in state.recipe.originals if isinstance(source, str)]
    with state.stage("base"):
        curve = make_base(made, named, state.recipe.seed, state.scratch / "base")
    return state.scratch / "base", curve


def _train(
    state: _Run, dual: ControlLLMForCausalLM, tokenizer: PreTrainedTokenizerBase, rows: data.Dataset
) -> tuple[ControlTrainer, list[str]]:
    recipe = state.recipe
    pool, samples = None, []
    if (settings := recipe.rehearsal) is not None:
        with state.stage("rehearsal"):
            sequences = rehearsal.sample(dual, tokenizer, settings, recipe.seed)
            samples = [str(tokenizer.decode(sequence)) for sequence in sequences[:8]]
        parts = recipe.train.accumulation
        pool = rehearsal.batches(sequences, settings.batch_size, parts, tokenizer.pad_token_id, recipe.seed)
    loss = recipe.divergence
    trainer = ControlTrainer(
        model=dual,
        divergence=None if loss.loss == "none" else Divergence(loss.loss, loss.weight),
        rehearsal=recipe.rehearsal,
        pool=pool,
        gate_learning_rate=recipe.train.gate_learning_rate,
        args=sft_config(recipe.train, recipe.seed, state.scratch),
        train_dataset=rows,
        processing_class=tokenizer,
    )
    with state.stage("train"):
        trainer.train()
    dual.model.keep_branches = False
    return trainer, samples


def _score(
    recipe: Recipe, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, chats: Sequence[data.Chat]
) -> float:
    chosen = recipe.evaluation
    return evaluate.score(model, tokenizer, chats, chosen.batch_size, chosen.max_new_tokens)


def _answers(
    recipe: Recipe, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, chats: Sequence[data.Chat]
) -> list[str]:
    chosen = recipe.evaluation
    return evaluate.answers(model, tokenizer, chats, chosen.batch_size, chosen.max_new_tokens)


def _layers(
    dual: ControlLLMForCausalLM, tokenizer: PreTrainedTokenizerBase, tests: dict[str, list[data.Chat]]
) -> list[report.LayerReport]:
    *originals, new = tests.values()
    on_new = evaluate.branch_statistics(dual, tokenizer, new[:64])
    on_originals = evaluate.branch_statistics(dual, tokenizer, [chat for chats in originals for chat in chats[:16]])
    return [
        report.LayerReport(
            layer=layer,
            weight_new=on_new[layer]["weight"],
            weight_originals=on_originals[layer]["weight"],
            alignment_new=on_new[layer]["alignment"],
            alignment_originals=on_originals[layer]["alignment"],
        )
        for layer in sorted(on_new)
    ]


def _write_checked(
    dual: ControlLLMForCausalLM,
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tests: Sequence[Sequence[data.Chat]],
    directory: Path,
) -> dict[str, float]:
    """Write the checkpoint, load it again, and compare: with the model in memory, and at scale 0 with the base."""
    dual.eval()
    dual.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    checkpoint.check(directory)
    loaded = AutoModelForCausalLM.from_pretrained(directory).eval()
    batch = evaluate.text_batch(AutoTokenizer.from_pretrained(directory), [chats[0] for chats in tests])
    with torch.inference_mode():
        differences = {
            "reload": (loaded(**batch).logits - dual(**batch).logits).abs().max().item(),
            "base_at_scale_0": (loaded(**batch, control_scale=0.0).logits - base.eval()(**batch).logits)
            .abs()
            .max()
            .item(),
        }
    for name, difference in differences.items():
        if difference > RELOAD_TOLERANCE:
            raise RuntimeError(f"check {name}: logits differ by {difference:.3g}, more than {RELOAD_TOLERANCE:g}")
    return differences
