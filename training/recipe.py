"""Recipes: everything a training run depends on, as one typed tree read from YAML.

This and `training.method` are the only places where a default is written. Unknown keys and wrong values are refused
with the field, the value and the choices. Nothing here reads data or touches a model.
"""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from training.method import Divergence, Expansion, Section

SkillName = Literal["reverse", "add", "compare", "capitals", "letters", "count", "help", "smalltalk", "tavi"]


class RecipeError(ValueError):
    """A recipe that cannot be used; the message names the field, the value and the choices."""


class Train(Section):
    """One optimisation: AdamW with warm-up and a cosine schedule, loss on the answers."""

    steps: int = Field(default=1000, gt=0)
    batch_size: int = Field(default=32, gt=0, description="examples per update")
    accumulation: int = Field(
        default=1, gt=0, description="micro-batches that an update is split into, short examples first"
    )
    learning_rate: float = Field(default=1e-3, gt=0)
    warmup_steps: int = Field(default=50, ge=0)
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    log_every: int = Field(default=25, gt=0)

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.batch_size % self.accumulation:
            raise ValueError(f"`accumulation` must divide `batch_size` ({self.batch_size})")
        return self


class ControlTrain(Train):
    """Training of the expanded layers and interpolators."""

    gate_learning_rate: float | None = Field(
        default=None, gt=0, description="for the interpolators; default: learning_rate"
    )


class BaselineTrain(Train):
    """A baseline stops at the first check where it is as good at the new skill as the controlled model."""

    check_every: int = Field(default=25, gt=0)
    check_prompts: int = Field(default=100, gt=0)


class Stage(Section):
    """One stage of a base's training, with an optimizer and a schedule of its own."""

    weights: dict[SkillName, float] = Field(default={}, description="how often a skill is drawn, 1 where not named")
    prompt_share: float = Field(
        default=0.1, ge=0, le=1, description="share of the examples whose request is learned too"
    )
    train: Train = Train()


class Made(Section):
    """A base model made here: a small Llama with a character tokenizer, trained on the original skills."""

    hidden_size: int = Field(default=96, gt=0)
    intermediate_size: int = Field(default=256, gt=0)
    initializer_range: float = Field(default=0.06, gt=0)
    layers: int = Field(default=8, gt=0)
    heads: int = Field(default=3, gt=0)
    context: int = Field(default=256, gt=0)
    stages: list[Stage] = Field(default=[Stage()], min_length=1)


class Base(Section):
    """The pre-trained model: a checkpoint directory, or one made here.

    With both, the checkpoint is taken for what `make` gave before (its last stages are slow), and the report says so.
    """

    path: Path | None = None
    make: Made | None = None

    @model_validator(mode="after")
    def _given(self) -> Self:
        if self.path is None and self.make is None:
            raise ValueError("give `path` (a checkpoint directory) or `make` (a model to be made here)")
        return self


class FileSkill(Section):
    """A skill read from JSONL files of chat messages; the last message is the answer."""

    name: str = Field(pattern=r"^[a-z0-9_-]+$")
    label: str = ""
    train: Path | None = None
    validation: Path | None = None
    test: Path


class Rehearsal(Section):
    """Self-rehearsal: the frozen base writes requests and answers, and the dual model is held to its predictions."""

    sequences: int = Field(default=2048, gt=0)
    batch_size: int = Field(default=16, gt=0, description="sequences per update; a multiple of train.accumulation")
    temperature: float = Field(default=1.0, gt=0)
    max_tokens: int = Field(default=160, gt=0)
    kl: float = Field(default=1.0, ge=0, description="weight of KL(base || dual)")
    gate: float = Field(default=1.0, ge=0, description="weight of the mean interpolation weight")


class Evaluation(Section):
    """Exact match of greedy answers, each skill alone."""

    split: Literal["validation", "test"] = "test"
    prompts: int = Field(default=200, gt=0, description="per skill")
    batch_size: int = Field(default=64, gt=0)
    max_new_tokens: int = Field(default=128, gt=0)


class Baselines(Section):
    """Other ways to learn the new skill from the same base and data, for comparison."""

    full_fine_tuning: BaselineTrain | None = None


class Example(Section):
    """A request shown in the report with everybody's answer."""

    skill: SkillName
    content: list[str] = Field(min_length=1)
    wording: int = Field(default=0, ge=0)


class Recipe(Section):
    """A whole run."""

    name: str = "run"
    seed: int = 0
    base: Base
    originals: list[SkillName | FileSkill] = Field(min_length=1)
    new: SkillName | FileSkill
    expansion: Expansion = Expansion()
    divergence: Divergence = Divergence()
    rehearsal: Rehearsal | None = None
    train: ControlTrain = ControlTrain()
    evaluation: Evaluation = Evaluation()
    baselines: Baselines = Baselines()
    examples: list[Example] = []
    output: Annotated[Path, Field(description="directory of the run")] = Path("out")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.base.make and any(isinstance(skill, FileSkill) for skill in self.originals):
            raise ValueError("a base made here learns named skills only: `originals` must not hold files")
        for number, stage in enumerate(self.base.make.stages if self.base.make else []):
            if unknown := set(stage.weights) - set(self.originals):
                raise ValueError(
                    f"base.make.stages.{number}.weights names {sorted(unknown)}, which `originals` does not hold"
                )
        if self.new in self.originals:
            raise ValueError(f"the new skill {self.new!r} is among `originals`")
        if self.rehearsal and self.rehearsal.batch_size % self.train.accumulation:
            raise ValueError(f"train.accumulation ({self.train.accumulation}) must divide rehearsal.batch_size")
        if self.rehearsal and self.rehearsal.batch_size > self.rehearsal.sequences:
            raise ValueError("rehearsal.batch_size is larger than rehearsal.sequences")
        if isinstance(self.new, FileSkill) and self.new.train is None:
            raise ValueError("new.train: name a JSONL file")
        self._check_losses()
        return self

    def _check_losses(self) -> None:
        """Refuse terms that would have no effect on the expansion, and an expansion that no term would train."""
        expansion, divergence = self.expansion, self.divergence
        if not expansion.has_branches and divergence.loss != "none":
            raise ValueError(
                f"divergence.loss ({divergence.loss!r}) compares branches, and expansion.kind 'stack' has none: "
                "it must be 'none'"
            )
        if expansion.chooses and (divergence.is_off or divergence.weight != -1):
            raise ValueError(
                "expansion.method 'moe' is a choice, through which no gradient passes: its gate learns from the "
                "divergence loss of divergence.weight -1 only"
            )
        if expansion.has_branches and expansion.method == "proj" and divergence.is_off:
            raise ValueError("expansion.method 'proj' learns its map from the divergence loss, and there is none of it")
        if self.rehearsal and self.rehearsal.gate and not expansion.trains_weight:
            raise ValueError(
                "rehearsal.gate weighs the interpolation weights, and none of them trains in this expansion: "
                "it must be 0"
            )
        if self.train.gate_learning_rate is not None and not expansion.trains_interpolator:
            raise ValueError(
                "train.gate_learning_rate is for interpolators, and none of them trains in this expansion: leave it out"
            )


def load(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file; each override is `dotted.key=value` with the value in YAML.

    Raises:
        RecipeError: the file or an override is not a recipe.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"recipe {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"recipe {path} is not YAML: {error}") from error
    if not isinstance(tree, dict):
        raise RecipeError(f"recipe {path}: expected a mapping at the top, found {type(tree).__name__}")
    for override in overrides:
        _apply(tree, override)
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise RecipeError(f"recipe {path}: " + "; ".join(_explain(item) for item in error.errors())) from error


def _apply(tree: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise RecipeError(f"override {override!r}: expected dotted.key=value")
    *parents, last = key.split(".")
    for parent in parents:
        if tree.get(parent) is None:
            tree[parent] = {}
        tree = tree[parent]
        if not isinstance(tree, dict):
            raise RecipeError(f"override {override!r}: {parent!r} is not a section")
    try:
        tree[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"override {override!r}: the value is not YAML") from error


def _explain(error: Any) -> str:
    """One pydantic error as: field, what was given, what is allowed."""
    # A union adds the tag of the branch it tried to the location: not part of the user's field.
    path = [str(part) for part in error["loc"] if part != "FileSkill" and not str(part).startswith("literal[")]
    field = ".".join(path) or "recipe"
    if error["type"] == "extra_forbidden":
        choices = _fields_at(path[:-1])
        close = difflib.get_close_matches(path[-1], choices, n=1)
        hint = f", did you mean {close[0]!r}?" if close else ""
        return f"unknown key {field} = {error['input']!r}{hint} Choices: {', '.join(choices)}"
    if error["type"] == "missing":
        return f"{field} is required"
    return f"{field} = {error['input']!r}: {error['msg']}"


def _fields_at(path: Sequence[str]) -> list[str]:
    """The keys that the section at `path` knows."""
    section: type[BaseModel] = Recipe
    for part in path:
        if part.isdigit():
            continue
        found = section.model_fields.get(part)
        for kind in _models(found.annotation if found else None):
            section = kind
    return sorted(section.model_fields)


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models(argument)]
