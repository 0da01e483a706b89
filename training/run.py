"""A whole run: base -> rows -> model -> rehearsal -> training -> baselines -> scores -> report.

What it leaves is whole or not there at all. Started by torchrun, all processes do the same, and the first one writes.
"""

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from cllm_model import checkpoint
from cllm_model.config import ControlLLMConfig
from cllm_model.expand import extract
from cllm_model.modeling import ControlLLMForCausalLM
from cllm_model.placement import choose_sites
from training import (
    baselines,
    data,
    machine,
    material,
    outcome,
    parity,
    processes,
    rehearsal,
    report,
    sequential,
    skills,
    trunk,
)
from training.architecture import base_config
from training.base import make_base
from training.evaluation import SkillChecks, read_suite, skill_scores
from training.evaluation.generation import padding
from training.methods import Control, Method
from training.optimise import Terms, optimise
from training.recipe import Recipe, RecipeError, Train
from training.report.page import write_html
from training.trunk_cache import Documents, TrunkCache, Visits, documents_of
from training.unfinished import check, unfinished

log = logging.getLogger(__name__)
_BASE_LOG = "training_log.json"
_SAMPLES = 8


def run(recipe: Recipe, resume: bool = False) -> Path:
    """Carry out a recipe; returns the report's path. `OUT/model` appears when everything is done.

    Args:
        recipe: What to do.
        resume: Go on with an unfinished run of the same recipe, if there is one.

    Raises:
        RecipeError: the recipe does not fit what is on disk, or this machine.
        DataError: a data file cannot be used.
    """
    recipe = sequential.resolved(recipe)
    machine.check(recipe)
    tests = prepare(recipe, resume)
    model, page = recipe.output / "model", recipe.output / "report.json"
    started = time.monotonic()
    with unfinished(recipe) as directory:
        stages = Stages(recipe, directory)
        trained = stages.train()
        if processes.is_first():
            with checkpoint.write_beside(model) as beside:
                found = stages.report(trained, tests, beside)
            found.checkpoint = checkpoint.checkpoint_hash(model)
            found.training.seconds = round(time.monotonic() - started, 1)
            report.write(found, page)
            write_html([(recipe.name, found)], page.with_suffix(".html"))
    return page


def prepare(recipe: Recipe, resume: bool = False) -> outcome.Skills:
    """Check what a recipe refers to but the base's weights; returns prompts to score each skill by, the new one last.

    Raises:
        RecipeError: the recipe does not fit what is on disk.
        DataError: a data file cannot be used.
    """
    if (recipe.output / "model").exists():
        raise RecipeError(f"output = {str(recipe.output)!r}: it holds a model already; choose another with --output")
    check(recipe, resume)
    chosen = recipe.expansion
    sites = chosen.layers if chosen.at is None else chosen.at
    assert sites is not None
    try:
        if recipe.base.sequential != "continue":
            choose_sites(sites, _depth(recipe))
    except ValueError as error:
        raise RecipeError(f"expansion.{error}") from error
    for name, baseline in recipe.baselines.all.items():
        try:
            if baseline.at is not None:
                choose_sites(baseline.at, _depth(recipe))
        except ValueError as error:
            raise RecipeError(f"baselines.others.{name}: {error}") from error
    trunk.check(recipe)
    if recipe.rehearsal is not None and recipe.rehearsal.file is not None:
        rehearsal.read_prompts(recipe.rehearsal.file)
    for suite in recipe.evaluation.suites:
        read_suite(suite)
    for example in recipe.examples:
        skill = skills.SKILLS[example.skill]
        if example.wording >= len(skill.wordings):
            raise RecipeError(f"examples: skill {skill.name!r} has wordings 0 to {len(skill.wordings) - 1}")
        if skills.split_of(skill, tuple(example.content)) != "test":
            raise RecipeError(f"examples: {example.content} of skill {skill.name!r} is not in the test split")
    return outcome.prompts(recipe, recipe.evaluation.split, recipe.evaluation.prompts)


def _depth(recipe: Recipe) -> int:
    """The number of layers of what is expanded."""
    config = base_config(recipe)
    return (config.base_config() if isinstance(config, ControlLLMConfig) else config).num_hidden_layers


def _context(base: Path) -> int:
    return int(AutoConfig.from_pretrained(base).max_position_embeddings)


@dataclass
class Stages:
    """The stages of one run.

    Attributes:
        recipe: The recipe.
        directory: What they hand on to each other on disk.
        cpu_seconds: What each of them took.
    """

    recipe: Recipe
    directory: Path
    cpu_seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage."""
        log.info("%s ...", name)
        start = time.process_time()
        yield
        self.cpu_seconds[name] = round(time.process_time() - start, 1)
        log.info("%s: %s CPU seconds", name, self.cpu_seconds[name])

    def train(self) -> outcome.Trained:
        """Everything up to the trained models, in all processes."""
        recipe = self.recipe
        base, method, base_log = self._base()
        tokenizer = data.load_tokenizer(base, None if recipe.data is None else recipe.data.chat_template)
        with self.stage("data"), processes.first_before_others():
            rows, facts = material.rows(recipe, recipe.train, _context(base), tokenizer, self.directory / "data")
        with processes.first_before_others():
            model = method.prepare(base, self.directory)
        if recipe.train.freeze_interpolators:
            assert isinstance(model, ControlLLMForCausalLM)
            model.freeze_interpolators()
        pool = self._pool(base, tokenizer)
        samples = [str(tokenizer.decode(pool.tokens(i))) for i in range(min(_SAMPLES, len(pool)))] if pool else []
        terms = Terms.of(recipe, pool)
        checks = self._checks(model, tokenizer)
        callbacks = [] if checks is None else [checks]
        kept, choices = self._trunk(model, rows, facts, pool)
        checkpoints = self.directory / "checkpoints"
        with self.stage("train"):
            model, state = optimise(
                model, tokenizer, rows, recipe.train, recipe.seed, checkpoints, terms, callbacks, kept
            )
        best_step = None if checks is None else checks.restore(model, state)
        others = self._baselines(base, tokenizer, terms, model)
        texts = [row["input_ids"] for row in rows.select(range(min(4, len(rows))))]
        return outcome.Trained(
            base, base_log, tokenizer, model, state, best_step, facts, texts, samples, choices, others
        )

    def _base(self) -> tuple[Path, Method, list[dict[str, float]]]:
        recipe, made = self.recipe, self.recipe.base.make
        if recipe.base.path is not None:
            with processes.first_before_others():
                directory, method = sequential.start(recipe, self.directory)
            return directory, method, []
        assert made is not None
        directory = self.directory / "base"
        if not directory.exists():
            named = [source for source in recipe.originals if isinstance(source, str)]
            with self.stage("base"):
                model, tokenizer, logs = make_base(made, named, recipe.seed, self.directory)
            if processes.is_first():
                with checkpoint.write_beside(directory) as beside:
                    model.save_pretrained(beside)
                    tokenizer.save_pretrained(beside)
                    (beside / _BASE_LOG).write_text(json.dumps(logs))
            processes.wait()
        return directory, Control(recipe.expansion), json.loads((directory / _BASE_LOG).read_text())

    def _pool(self, base: Path, tokenizer: PreTrainedTokenizerBase) -> rehearsal.Pool | None:
        recipe, settings = self.recipe, self.recipe.rehearsal
        if settings is None:
            return None
        file = self.directory / "pool.safetensors"
        with self.stage("rehearsal"), processes.first_before_others():
            if not file.exists():
                rehearsal.build(loaded(base), tokenizer, settings, recipe.seed, file)
        parts = recipe.train.accumulation * processes.count()
        return rehearsal.Pool(file, settings.batch_size, parts, padding(tokenizer), recipe.seed)

    def _trunk(
        self, model: PreTrainedModel, rows: Dataset, facts: dict[str, Any], pool: rehearsal.Pool | None
    ) -> tuple[TrunkCache, dict[str, trunk.Choice]]:
        """Which states of the frozen layers below the expansion are kept, and why."""
        recipe, settings = self.recipe, self.recipe.rehearsal
        assert isinstance(model, ControlLLMForCausalLM)
        documents = {"data": Documents(documents_of(rows))}
        # Rows from files may be too many to go through them only to count.
        counted = [(part["tokens"], part["passes"]) for part in facts.get("sources", [])]
        visits = {"data": Visits.of(counted) if counted else documents["data"].visits}
        if pool is not None and settings is not None:
            documents["rehearsal"] = Documents(np.array(pool.tokens(i), np.int32) for i in range(len(pool)))
            times = recipe.train.steps * settings.batch_size / len(pool)
            visits["rehearsal"] = Visits(pool.offsets[-1], times)
        choices = trunk.settle(model, recipe, visits, self.directory)
        kept = {name: source for name, source in documents.items() if choices[name].cached}
        return TrunkCache(self.directory / "trunk", kept), choices

    def _checks(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> SkillChecks | None:
        settings, during = self.recipe.evaluation, self.recipe.evaluation.during
        if during is None:
            return None
        prompts = outcome.prompts(self.recipe, "validation", during.prompts)
        *originals, new = prompts

        def score() -> dict[str, float]:
            with torch.compiler.set_stance("force_eager"):  # generation is not what was compiled
                return skill_scores(model, tokenizer, prompts, settings)

        file, floor = self.directory / "best.safetensors", settings.retention_floor
        return SkillChecks(score, originals, new, during.every, floor, during.stop_below, file)

    def _baselines(
        self, base: Path, tokenizer: PreTrainedTokenizerBase, terms: Terms, control: PreTrainedModel
    ) -> dict[str, tuple[PreTrainedModel, dict[str, Any]]]:
        recipe, sections = self.recipe, self.recipe.baselines.all
        if not sections:
            return {}
        prompts = outcome.prompts(recipe, "validation", max(each.train.check_prompts for each in sections.values()))
        new = outcome.name_of(outcome.scored(recipe)[-1])
        old = {name: chats for name, chats in prompts.items() if name != new}

        def on_new(model: PreTrainedModel) -> float:
            return skill_scores(model, tokenizer, {new: prompts[new]}, recipe.evaluation)[new]

        def on_originals(model: PreTrainedModel) -> float:
            scores = skill_scores(model, tokenizer, old, recipe.evaluation)
            return sum(scores.values()) / max(len(scores), 1)

        def rows(train: Train, replay: float) -> Dataset:
            return material.rows(recipe, train, _context(base), tokenizer, self.directory / "data", replay)[0]

        lesson = baselines.Lesson(
            base,
            tokenizer,
            recipe.expansion,
            rows,
            terms,
            on_new,
            on_originals,
            on_new(control),
            recipe.seed,
        )
        found = {}
        for name, section in sections.items():
            with self.stage(name):
                found[name] = baselines.fit(section, lesson, self.directory / name)
        return found

    def report(self, trained: outcome.Trained, tests: outcome.Skills, directory: Path) -> report.Report:
        """Measure, write the checkpoint and compare it with what was trained; returns the report, without its hash."""
        recipe, model, tokenizer = self.recipe, trained.model.eval(), trained.tokenizer
        base = loaded(trained.base).eval()
        models = {"base": base, "control": model} | {name: one.eval() for name, (one, _) in trained.others.items()}
        with self.stage("evaluation"):
            measured = outcome.measure(recipe, models, tokenizer, tests)
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
        with self.stage("parity"):
            texts = [data.encode(tokenizer, chats[0])["input_ids"] for chats in tests.values()]
            compared = parity.check(
                directory, model, self._plain(trained.base, base), texts or trained.texts, recipe.evaluation.vllm_parity
            )
        return outcome.report_of(recipe, trained, measured, compared, self.cpu_seconds)

    def _plain(self, directory: Path, base: PreTrainedModel) -> PreTrainedModel:
        """What the model is at scale 0: the base itself, or of a base that is controlled already the base inside it."""
        if not isinstance(base, ControlLLMForCausalLM):
            return base
        extract(directory, self.directory / "plain")
        return loaded(self.directory / "plain").eval()


def loaded(directory: Path) -> PreTrainedModel:
    """A checkpoint on the accelerator, or on the CPU without one."""
    model: Any = AutoModelForCausalLM.from_pretrained(directory)
    return model.to(torch.accelerator.current_accelerator() or torch.device("cpu"))
