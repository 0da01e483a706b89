"""`report.json`: what a run did and what came of it. The server and the UI read it as plain JSON.

Fields may be added, with a default; those here keep their names and meaning within `schema` 1.
"""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from training.intervals import Interval, wilson
from training.measure import Measure


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Scores(_Part):
    """Share of exactly right greedy answers; a model that was not run has none."""

    base: float
    control: float
    full_fine_tuning: float | None = None


class Question(_Part):
    """A request, and its only right answer."""

    prompt: str
    expected: str


class SkillReport(_Part):
    """One skill, on prompts that were never trained on."""

    name: str
    kind: Literal["original", "new"]
    label: str
    prompts: int
    scores: Scores
    baselines: dict[str, float] = Field(default={}, description="other ways to learn the same, by name of the method")
    intervals: dict[str, Interval] = Field(
        default={}, description="95 % (Wilson) of each score, by the model's name; follows from scores and prompts"
    )

    prompts_sample: list[Question] = Field(default=[], description="some of the prompts, to be asked again live")

    @property
    def by_model(self) -> dict[str, float]:
        """All scores that there are, by the model's name."""
        return self.scores.model_dump(exclude_none=True) | self.baselines

    @model_validator(mode="after")
    def _fill_in(self) -> Self:
        self.intervals = {
            name: wilson(round(score * self.prompts), self.prompts) for name, score in self.by_model.items()
        }
        return self


class Answers(_Part):
    """What each model answered to one prompt."""

    base: str
    control: str
    full_fine_tuning: str | None = None


class ExampleReport(_Part):
    """One request of the report, with everybody's answer."""

    skill: str
    prompt: str
    expected: str
    answers: Answers


class LayerReport(_Part):
    """One dual-branch layer after training: mean interpolation weight and cosine of its branches on test text."""

    layer: int
    weight_new: float
    weight_originals: float
    alignment_new: float
    alignment_originals: float


class DialPoint(_Part):
    """Scores of every skill at one control scale; 0 is the base."""

    scale: float
    scores: dict[str, float]


class Recommendation(_Part):
    """Why a scale is recommended: the rule, and what it was given. Never chosen on the split that is reported."""

    scale: float
    rule: str
    split: Literal["validation"] = "validation"
    prompts: int
    points: list[DialPoint]


class CheckReport(_Part):
    """Scores on the validation split while the model was trained; step 0 is before training."""

    step: int
    scores: dict[str, float]


class TrunkCacheReport(_Part):
    """Whether what the frozen layers below the expansion make of a source was computed once and kept, and why."""

    cached: bool
    reason: str


class TrainingReport(_Part):
    """The optimisation of the expanded model, and of what it is compared with."""

    steps: int
    base_reused: bool = Field(description="the base was made by an earlier run of the same recipe's base stages")
    seconds: float
    cpu_seconds: dict[str, float] = Field(description="per stage, of all threads")
    trainable_parameters: int
    frozen_parameters: int
    loss_curve: list[dict[str, float]]
    base_loss_curve: list[dict[str, float]]
    layers: list[LayerReport] = Field(description="the dual-branch layers; a stacked expansion has none")
    rehearsal_samples: list[str]
    trunk_cache: dict[str, TrunkCacheReport] = Field(default={}, description="for data, and for rehearsed sequences")
    full_fine_tuning: dict[str, Any] | None = None
    baselines: dict[str, dict[str, Any]] = Field(default={}, description="facts of other methods, by name")
    checks: list[CheckReport] = []
    best_step: int | None = Field(default=None, description="step whose weights were kept, where it was not the last")
    best_rule: str | None = None


class Report(_Part):
    """The whole report."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    created: str
    checkpoint: str = Field(pattern="^[0-9a-f]{12}$")
    recommended_scale: float = 1.0
    split: Literal["validation", "test"]
    skills: list[SkillReport]
    examples: list[ExampleReport]
    training: TrainingReport
    checks: dict[str, float] = Field(description="largest differences in logits that were measured; vLLM's: in log-p")
    checks_skipped: dict[str, str] = Field(default={}, description="name of a check -> why it was left out")
    dial: list[DialPoint] = Field(default=[], description="the reported split at every scale; empty: not measured")
    recommendation: Recommendation | None = Field(default=None, description="None: the scale is 1, as trained")
    measures: list[Measure] = Field(default=[], description="suites of the recipe, at every scale")
    data: dict[str, Any] = Field(default={}, description="what was learned from")
    history: list[dict[str, Any]] = Field(default=[], description="earlier runs that led to the base, oldest first")
    recipe: dict[str, Any]
    environment: dict[str, str]
    git_commit: str | None = Field(default=None, description="of the code; None where it is not a checkout")
