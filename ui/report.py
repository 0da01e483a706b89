"""The parts of a training report that the page shows: scores, examples, the dial's curve, how training went.

Reads the JSON that `GET /v1/control` carries; fields that the page does not show are ignored. A report that
does not fit is left out with a warning: a page without scores is better than no page.
"""

import logging
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

logger = logging.getLogger(__name__)

Kind = Literal["original", "new"]
SCHEMA = 1
BASE, CONTROL, FULL = "base", "control", "full_fine_tuning"


class Question(BaseModel):
    """One held-out prompt and its only right answer."""

    prompt: str
    expected: str


class Skill(BaseModel):
    """One skill and what each model scores on it, 0 … 1."""

    name: str
    kind: Kind
    label: str = ""
    scores: dict[str, float | None] = {}  # None: not measured
    baselines: dict[str, float | None] = {}  # other ways to learn the same
    prompts_sample: list[Question] = []

    @property
    def by_model(self) -> dict[str, float | None]:
        """All scores that there are, by the model's name."""
        return {**self.scores, **self.baselines}

    @property
    def title(self) -> str:
        """The label, or the name where there is none."""
        return self.label or self.name


class Example(BaseModel):
    """One prompt with the answers recorded when the checkpoint was trained."""

    skill: str
    prompt: str
    expected: str = ""
    answers: dict[str, str | None] = {}  # None: not recorded


class DialPoint(BaseModel):
    """What every skill scores at one control scale."""

    scale: float
    scores: dict[str, float | None] = {}


class Layer(BaseModel):
    """One dual-branch layer after training: mean interpolation weight and cosine of its branches."""

    layer: int
    weight_new: float | None = None
    weight_originals: float | None = None
    alignment_new: float | None = None
    alignment_originals: float | None = None


class Training(BaseModel):
    """How training went; a point of the curve holds `step`, `loss` and whatever else was logged."""

    steps: int | None = None
    seconds: float | None = None
    trainable_parameters: int | None = None
    frozen_parameters: int | None = None
    loss_curve: list[dict[str, float | None]] = []
    layers: list[Layer] = []


class Report(BaseModel):
    """What the page reads of a report."""

    created: str = ""
    checkpoint: str = ""
    split: str = ""
    recommended_scale: float | None = None
    skills: list[Skill] = []
    examples: list[Example] = []
    dial: list[DialPoint] = []
    training: Training = Training()

    def skill(self, name: str) -> Skill:
        """The skill called `name`; an unlisted one counts as new."""
        return next((skill for skill in self.skills if skill.name == name), Skill(name=name, kind="new"))

    def examples_of(self, kind: Kind, limit: int) -> list[Example]:
        """At most `limit` examples of a kind, the first of every skill before the second of any."""
        mine = [example for example in self.examples if self.skill(example.skill).kind == kind]
        seen: dict[str, int] = {}
        ranked = []
        for place, example in enumerate(mine):
            seen[example.skill] = seen.get(example.skill, 0) + 1
            ranked.append((seen[example.skill], place, example))
        return [example for _, _, example in sorted(ranked, key=lambda item: item[:2])[:limit]]

    def example_for(self, prompt: str) -> Example | None:
        """The recorded example whose prompt is exactly this one."""
        return next((e for e in self.examples if e.prompt.strip() == prompt.strip()), None)

    @property
    def has_recording(self) -> bool:
        """Whether any full fine-tuning answer was recorded."""
        return any(example.answers.get(FULL) is not None for example in self.examples)

    def mean(self, kind: Kind, column: str) -> float | None:
        """The mean score of a column over the skills of a kind."""
        measured = (skill.by_model.get(column) for skill in self.skills if skill.kind == kind)
        scores = [score for score in measured if score is not None]
        return sum(scores) / len(scores) if scores else None


def read_report(data: Any) -> Report | None:
    """The report, or None where there is none or it is of another shape."""
    if data is None:
        return None
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        logger.warning("the server's training report is not of schema %d: not shown", SCHEMA)
        return None
    try:
        return Report.model_validate(data)
    except ValidationError as error:
        logger.warning("the server's training report does not fit and is not shown: %s", error)
        return None
