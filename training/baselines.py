"""Carries out a baseline: every learning rate of its search, averages with the base, and what validation prefers.

Data, rehearsal and scores are the controlled model's own. Nothing here sees a test prompt.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from training.methods import Control, Full, Half, LoRA, Method, Partial, lines, trainable_parameters, wise_ft
from training.optimise import Terms, optimise
from training.recipe import Baseline, BaselineTrain, Expansion

log = logging.getLogger(__name__)
_AVERAGES = {"wise_ft": wise_ft, "lines": lines}


class Validation(NamedTuple):
    """Scores on validation prompts: of the new skill, and the mean of the originals'."""

    new: float
    originals: float


@dataclass(frozen=True)
class Lesson:
    """What all baselines of a run are given.

    Attributes:
        base: Directory of the base.
        tokenizer: Its tokenizer.
        expansion: The controlled model's: a baseline that trains some layers trains these.
        rows: Training data for a section, a share of it replaced by stored examples of the originals.
        terms: Rehearsal of the controlled model, for a baseline that rehearses too.
        new: Score of the new skill on validation prompts.
        originals: Mean score of the originals on validation prompts.
        target: The controlled model's score of the new skill there.
        seed: Of what is random in training.
    """

    base: Path
    tokenizer: PreTrainedTokenizerBase
    expansion: Expansion
    rows: Callable[[BaselineTrain, float], Dataset]
    terms: Terms
    new: Callable[[PreTrainedModel], float]
    originals: Callable[[PreTrainedModel], float]
    target: float
    seed: int

    def validate(self, model: PreTrainedModel) -> Validation:
        """Score a model."""
        return Validation(self.new(model), self.originals(model))

    def merit(self, found: Validation) -> tuple[bool, float]:
        """What is chosen by: of all that reach the target what keeps the originals best, else what learned most."""
        reached = found.new >= self.target
        return reached, found.originals if reached else found.new


class StopAtScore(TrainerCallback):
    """Ends a training at the first check that reaches a score, so that it forgets no more than it must."""

    def __init__(self, score: Callable[[], float], target: float, every: int) -> None:
        self.score = score
        self.target = target
        self.every = every
        self.checks: list[dict[str, float]] = []

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Check the score every so many steps."""
        if state.global_step % self.every == 0:
            self.checks.append({"step": state.global_step, "score": self.score()})
            control.should_training_stop = self.checks[-1]["score"] >= self.target
        return control


def fit(baseline: Baseline, lesson: Lesson, scratch: Path) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Train a baseline with each of its learning rates and return the best model, and facts for the report.

    Args:
        baseline: The recipe's section.
        lesson: What it is given.
        scratch: Directory to write to.

    Raises:
        ValueError: The section does not fit the base.
    """
    rates = baseline.learning_rates or [baseline.train.learning_rate]
    tried = []
    best: tuple[tuple[bool, float], PreTrainedModel, dict[str, Any]] | None = None
    for number, rate in enumerate(rates):
        train = baseline.train.model_copy(update={"learning_rate": rate})
        model, facts = _trained(baseline, train, lesson, scratch / str(number))
        found = lesson.validate(model)
        tried.append({"learning_rate": rate, **found._asdict()})
        log.info("baseline %s, learning rate %g: new %.3f, originals %.3f", baseline.method, rate, *found)
        if best is None or lesson.merit(found) > best[0]:
            best = lesson.merit(found), model, {**facts, "learning_rate": rate}
    assert best is not None
    _, model, facts = best
    facts["search"] = tried
    if baseline.average is not None:
        model, facts["average"] = _averaged(baseline, lesson, model)
    return model, facts


def _method(baseline: Baseline, expansion: Expansion) -> Method:
    """The method of a section; layers that it does not name are the expansion's."""
    at = expansion.at if baseline.at is None else baseline.at
    if baseline.method == "partial":
        layers = expansion.layers if at is None else tuple(at)
        assert layers is not None
        return Partial(layers)
    if baseline.method == "stack":
        return Control(Expansion(kind="stack", at=at) if at else Expansion(kind="stack", layers=expansion.layers))
    return {"full": Full(), "hft": Half(), "lora": LoRA(baseline.rank, 2 * baseline.rank)}[baseline.method]


def _trained(
    baseline: Baseline, train: BaselineTrain, lesson: Lesson, scratch: Path
) -> tuple[PreTrainedModel, dict[str, Any]]:
    method = _method(baseline, lesson.expansion)
    model = method.prepare(lesson.base, scratch)
    trainable = trainable_parameters(model)
    stop = StopAtScore(lambda: lesson.new(model), lesson.target, train.check_every)
    rows = lesson.rows(train, baseline.replay)
    terms = Terms(rehearsal=lesson.terms.rehearsal, pool=lesson.terms.pool) if baseline.rehearse else Terms()
    model, state = optimise(model, lesson.tokenizer, rows, train, lesson.seed, scratch, terms, [stop])
    facts = {
        "method": baseline.method,
        "steps": state.global_step,
        "target": lesson.target,
        "reached": bool(stop.checks) and stop.checks[-1]["score"] >= lesson.target,
        "checks": stop.checks,
        "trainable_parameters": trainable,
        "rehearsal": baseline.rehearse,
        "replay": baseline.replay,
    }
    return method.finish(model), facts


def _averaged(baseline: Baseline, lesson: Lesson, model: PreTrainedModel) -> tuple[PreTrainedModel, dict[str, Any]]:
    """What validation prefers of the averages with the base; 1 is the model as trained."""
    assert baseline.average is not None
    average = _AVERAGES[baseline.average]
    start = AutoModelForCausalLM.from_pretrained(lesson.base)
    found = {share: lesson.validate(average(start, model, share)) for share in baseline.shares}
    share = max(found, key=lambda one: lesson.merit(found[one]))
    facts = {
        "kind": baseline.average,
        "share": share,
        "search": [{"share": one, **score._asdict()} for one, score in found.items()],
    }
    return average(start, model, share), facts
