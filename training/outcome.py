"""What came of a run: scores, answers, the dial's curve and the layers of the models that it leaves, and its report."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerState

from cllm_model.modeling import ControlLLMForCausalLM
from cllm_model.scale import TRAINED_SCALE
from training import data, evaluation, report, sequential, skills
from training.evaluation import LocalModel, dial_curve, recommend, skill_scores
from training.evaluation.choice import RULE
from training.evaluation.during import checks_of
from training.measure import Measure
from training.methods import trainable_parameters
from training.parity import Parity
from training.recipe import FileSkill, Recipe, SkillName
from training.trunk import Choice

Skills = dict[str, list[data.Chat]]
"""Name of a skill -> prompts to score it by; the new one last."""

_NAMED = tuple(report.Scores.model_fields)  # models that the report names; other baselines stand beside them

_SAMPLE = 10  # prompts of each skill


def name_of(source: SkillName | FileSkill) -> str:
    """What a skill is called in reports."""
    return source if isinstance(source, str) else source.name


def label_of(source: SkillName | FileSkill) -> str:
    """What a skill is called for people."""
    return skills.SKILLS[source].label if isinstance(source, str) else source.label or source.name


def scored(recipe: Recipe) -> list[SkillName | FileSkill]:
    """The skills that a recipe scores, the new one last."""
    return [] if recipe.new is None else [*recipe.originals, recipe.new]


def sample(chats: Sequence[data.Chat]) -> list[report.Question]:
    """Return the first few prompts that are one message, for the UI to ask again."""
    single = [chat for chat in chats if len(chat.messages) == 1]
    return [report.Question(prompt=chat.prompt, expected=chat.answer) for chat in single[:_SAMPLE]]


def prompts(recipe: Recipe, split: skills.Split, count: int) -> Skills:
    """Prompts to score each skill by; a file skill without such a file is left out.

    Raises:
        DataError: A file cannot be used.
    """
    return {
        name_of(source): data.held_out(source, split, count, recipe.seed)
        for source in scored(recipe)
        if isinstance(source, str) or split == "test" or source.validation is not None
    }


@dataclass(frozen=True)
class Trained:
    """What training leaves.

    Attributes:
        base: Directory of what was trained from.
        base_log: Log of its own training, if it was made here.
        tokenizer: Of all models.
        model: The controlled model.
        state: The trainer's state at the end.
        best_step: The update whose weights were kept, if checks during training chose it.
        facts: What was learned from.
        texts: Token ids of some of it.
        samples: Some of what is rehearsed.
        trunk: Source of sequences -> whether the states below the expansion were cached.
        others: Baseline -> its model, and what is to be said of it.
    """

    base: Path
    base_log: list[dict[str, float]]
    tokenizer: PreTrainedTokenizerBase
    model: PreTrainedModel
    state: TrainerState
    best_step: int | None
    facts: dict[str, Any]
    texts: list[list[int]]
    samples: list[str]
    trunk: dict[str, Choice]
    others: dict[str, tuple[PreTrainedModel, dict[str, Any]]]


@dataclass(frozen=True)
class Outcome:
    """The measured parts of a report."""

    skills: list[report.SkillReport]
    examples: list[report.ExampleReport]
    layers: list[report.LayerReport]
    dial: list[report.DialPoint]
    recommendation: report.Recommendation | None
    measures: list[Measure]


def measure(
    recipe: Recipe, models: Mapping[str, PreTrainedModel], tokenizer: PreTrainedTokenizerBase, tests: Skills
) -> Outcome:
    """Score all models, and the controlled one at every scale.

    Args:
        recipe: What to measure.
        models: `base`, `control`, and any others to compare with.
        tokenizer: Of all of them.
        tests: Prompts of the reported split.
    """
    chosen, control = recipe.evaluation, models["control"]
    scores = {model: skill_scores(models[model], tokenizer, tests, chosen) for model in models}
    has_dial = isinstance(control, ControlLLMForCausalLM)
    return Outcome(
        [
            report.SkillReport(
                name=name_of(source),
                kind="new" if source is recipe.new else "original",
                label=label_of(source),
                prompts=len(tests[name_of(source)]),
                scores=report.Scores(**{m: found[name_of(source)] for m, found in scores.items() if m in _NAMED}),
                baselines={m: found[name_of(source)] for m, found in scores.items() if m not in _NAMED},
                prompts_sample=sample(tests[name_of(source)]),
            )
            for source in scored(recipe)
        ],
        _examples(recipe, models, tokenizer),
        _layers(control, tokenizer, tests) if isinstance(control, ControlLLMForCausalLM) and tests else [],
        dial_curve(control, tokenizer, tests, chosen) if has_dial and tests else [],
        _recommendation(recipe, control, tokenizer) if has_dial and tests else None,
        _measures(recipe, control, tokenizer),
    )


def _examples(
    recipe: Recipe, models: Mapping[str, PreTrainedModel], tokenizer: PreTrainedTokenizerBase
) -> list[report.ExampleReport]:
    chosen = recipe.evaluation
    examples = [skills.SKILLS[e.skill].example(tuple(e.content), e.wording) for e in recipe.examples]
    chats = [data.chat(example) for example in examples]
    given = {
        name: evaluation.answers(model, tokenizer, chats, chosen.batch_size, chosen.max_new_tokens)
        for name, model in models.items()
    }
    return [
        report.ExampleReport(
            skill=example.skill,
            prompt=example.prompt,
            expected=example.answer,
            answers=report.Answers(**{model: found[i] for model, found in given.items() if model in _NAMED}),
        )
        for i, example in enumerate(examples)
    ]


def _layers(
    dual: ControlLLMForCausalLM, tokenizer: PreTrainedTokenizerBase, tests: Mapping[str, Sequence[data.Chat]]
) -> list[report.LayerReport]:
    *originals, new = tests.values()
    on_new = evaluation.branch_statistics(dual, tokenizer, new[:64])
    on_originals = evaluation.branch_statistics(dual, tokenizer, [chat for chats in originals for chat in chats[:16]])
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


def _measures(recipe: Recipe, control: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[Measure]:
    """The recipe's suites at every scale; at 1 alone for a model without a dial."""
    chosen = recipe.evaluation
    target = LocalModel(control, tokenizer, chosen.batch_size, chosen.max_new_tokens, chosen.window)
    scales = chosen.scales if isinstance(control, ControlLLMForCausalLM) else [TRAINED_SCALE]
    return evaluation.evaluate(target, [evaluation.read_suite(source) for source in chosen.suites], scales)


def _recommendation(
    recipe: Recipe, control: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> report.Recommendation | None:
    """The best scale on the validation split; None where a skill has no such split, or there is no scale to choose."""
    chosen = recipe.evaluation
    validation = prompts(recipe, "validation", chosen.prompts)
    if len(validation) < len(scored(recipe)) or 0 not in chosen.scales or len(chosen.scales) < 2:
        return None
    points = dial_curve(control, tokenizer, validation, chosen)
    *originals, new = validation
    fewest = min(map(len, validation.values()))
    return recommend(points, originals, new, chosen.retention_floor, fewest)


def report_of(
    recipe: Recipe, trained: Trained, measured: Outcome, compared: Parity, cpu_seconds: dict[str, float]
) -> report.Report:
    """The report of a run; the checkpoint's hash and the duration are not known yet."""
    history = trained.state.log_history
    trainable = trainable_parameters(trained.model)
    facts = {name: facts for name, (_, facts) in trained.others.items()}
    floor = recipe.evaluation.retention_floor
    return report.Report(
        schema=1,
        created=report.now(),
        checkpoint="0" * 12,
        split=recipe.evaluation.split,
        recommended_scale=1.0 if measured.recommendation is None else measured.recommendation.scale,
        skills=measured.skills,
        examples=measured.examples,
        training=report.TrainingReport(
            steps=trained.state.global_step,
            base_reused=recipe.base.path is not None and recipe.base.make is not None,
            seconds=0.0,
            cpu_seconds=cpu_seconds,
            trainable_parameters=trainable,
            frozen_parameters=trained.model.num_parameters() - trainable,
            loss_curve=[entry for entry in history if "loss" in entry],
            base_loss_curve=trained.base_log,
            layers=measured.layers,
            rehearsal_samples=trained.samples,
            trunk_cache={name: report.TrunkCacheReport(**asdict(choice)) for name, choice in trained.trunk.items()},
            full_fine_tuning=facts.pop("full_fine_tuning", None),
            baselines=facts,
            checks=[report.CheckReport(step=check.step, scores=check.scores) for check in checks_of(history)],
            best_step=trained.best_step,
            best_rule=None if trained.best_step is None else RULE.format(floor=floor, first="the earliest check"),
        ),
        checks=compared.differences,
        checks_skipped=compared.skipped,
        dial=measured.dial,
        recommendation=measured.recommendation,
        measures=measured.measures,
        data=trained.facts,
        history=[] if recipe.base.path is None else sequential.history(recipe.base.path),
        recipe=_shareable(recipe),
        environment=report.environment(),
        git_commit=report.git_commit(),
    )


def _shareable(recipe: Recipe) -> dict[str, Any]:
    """The recipe without the directories of the machine it ran on."""
    tree = recipe.model_dump(exclude={"output"})
    if recipe.base.make:
        tree["base"]["path"] = None
    tree["evaluation"]["suites"] = [Path(source) for source in recipe.evaluation.suites]
    named: dict[str, Any] = json.loads(json.dumps(tree, default=lambda path: path.name))
    return named
