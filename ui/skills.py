"""Held-out prompts of every skill, and how many of them a model answers exactly right. Knows no page and no network.

The prompts are those of a file, of the report, or, where it holds none, the report's examples.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from ui.report import Kind, Question, Report, Skill


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid")

    skill: str
    prompt: str
    expected: str
    kind: Kind = "original"
    label: str = ""


@dataclass
class Tally:
    """How one skill's prompts fared so far."""

    asked: int = 0
    right: int = 0
    failed: int = 0  # not answered at all: neither right nor wrong

    def note(self, right: bool) -> None:
        """Count an answer."""
        self.asked += 1
        self.right += right

    @property
    def share(self) -> float | None:
        """Share of right answers among those given."""
        return self.right / self.asked if self.asked else None


@dataclass
class Run:
    """The tallies of one run over all skills, at one control scale."""

    scale: float
    tallies: dict[str, Tally] = field(default_factory=dict)

    def mean(self, skills: list[Skill], kind: Kind) -> float | None:
        """The mean share over the skills of a kind, as far as they were asked."""
        tallies = (self.tallies.get(skill.name, Tally()) for skill in skills if skill.kind == kind)
        shares = [tally.share for tally in tallies if tally.share is not None]
        return sum(shares) / len(shares) if shares else None


def read_skills(path: Path) -> list[Skill]:
    """Return the skills of a JSONL file with `skill`, `prompt`, `expected`, and `kind` (original or new) and `label`.

    Raises:
        ValueError: The file cannot be read, or a line has another shape.
    """
    skills: dict[str, Skill] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"skills: {str(path)!r} cannot be read: {error}") from error
    for number, text in enumerate(lines, 1):
        if not text.strip():
            continue
        try:
            line = _Line.model_validate(json.loads(text))
        except (ValidationError, ValueError) as error:
            reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
            raise ValueError(f"skills: {path}, line {number}: {reason}") from error
        skill = skills.setdefault(line.skill, Skill(name=line.skill, kind=line.kind, label=line.label))
        skill.prompts_sample.append(Question(prompt=line.prompt, expected=line.expected))
    if not skills:
        raise ValueError(f"skills: {str(path)!r} holds no prompt")
    return list(skills.values())


def skills_of(report: Report | None) -> list[Skill]:
    """Return the skills of a report that have prompts to ask; examples stand in where there is no sample."""
    if report is None:
        return []
    found = []
    for skill in report.skills:
        examples = [Question(prompt=e.prompt, expected=e.expected) for e in report.examples if e.skill == skill.name]
        questions = skill.prompts_sample or [question for question in examples if question.expected]
        if questions:
            found.append(skill.model_copy(update={"prompts_sample": questions}))
    return found
