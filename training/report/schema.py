"""`report.json`: what a run did and what came of it. The server and the UI read it as plain JSON.

Fields may be added; those here keep their names and meaning within `schema` 1.
"""

import json
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

_PACKAGES = ("torch", "transformers", "trl", "accelerate", "datasets", "tokenizers")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Scores(_Part):
    """Share of exactly right greedy answers; a model that was not run has none."""

    base: float
    control: float
    full_fine_tuning: float | None = None


class SkillReport(_Part):
    """One skill, on prompts that were never trained on."""

    name: str
    kind: Literal["original", "new"]
    label: str
    prompts: int
    scores: Scores


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
    full_fine_tuning: dict[str, Any] | None = None


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
    checks: dict[str, float] = Field(description="largest differences in logits that were measured")
    recipe: dict[str, Any]
    environment: dict[str, str]


def now() -> str:
    """The time of day in ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def environment() -> dict[str, str]:
    """Versions of what computed the numbers."""
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}


def write(report: Report, path: Path) -> None:
    """Write the report beside its place, then rename it."""
    beside = path.with_name(f".{path.name}.part")
    beside.write_text(json.dumps(report.model_dump(by_alias=True), indent=1) + "\n", encoding="utf-8")
    beside.chmod(0o644)
    beside.replace(path)


def read(path: Path) -> Report:
    """Read a report and check it."""
    return Report.model_validate_json(path.read_text(encoding="utf-8"))
