"""`report.html`: one run, or two side by side, as one file that needs nothing from outside.

Everything that comes from a report is escaped: by the template, and in the figures by matplotlib.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from training.report.differences import differences
from training.report.file import write_text
from training.report.plots import figures
from training.report.schema import Report, SkillReport

MODELS = {"base": "base", "control": "Control LLM", "full_fine_tuning": "full fine-tuning"}
"""Name of a model in a report -> how it is shown; others are shown by their name."""


class Side(NamedTuple):
    """One run of the page: its title, its report, its figures by title."""

    title: str
    report: Report
    figures: dict[str, Markup]


def write_html(named: Sequence[tuple[str, Report]], path: Path) -> None:
    """Write the page of one or two reports, each with a name to tell it by."""
    write_text(html(named), path)


def html(named: Sequence[tuple[str, Report]]) -> str:
    """The page of one or two reports."""
    sides = [
        # matplotlib writes its text escaped
        Side(name, report, {title: Markup(svg) for title, svg in figures(report, f"run{number}-").items()})
        for number, (name, report) in enumerate(named)
    ]
    templates = Environment(
        loader=PackageLoader("training.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"share": share, "pretty": _pretty}
    return templates.get_template("page.html.j2").render(
        sides=sides,
        skills=skill_rows([side.report for side in sides]),
        models=[models(side.report) for side in sides],
        shown=MODELS,
        mean=mean,
        titles=list(dict.fromkeys(title for side in sides for title in side.figures)),
        changed=differences(*(side.report.recipe for side in sides)) if len(sides) == 2 else {},
    )


def models(report: Report) -> list[str]:
    """The models that a report has scores of, in the order of its first skill."""
    return list(dict.fromkeys(name for skill in report.skills for name in skill.by_model))


def skill_rows(reports: Sequence[Report]) -> list[list[SkillReport | None]]:
    """Each skill of any report: what each report has of it."""
    names = list(dict.fromkeys((skill.name, skill.kind) for report in reports for skill in report.skills))
    found = [{(skill.name, skill.kind): skill for skill in report.skills} for report in reports]
    return [[skills.get(name) for skills in found] for name in names]


def mean(report: Report, model: str) -> float | None:
    """Mean score of a model over the original skills; None where it was not run on all of them."""
    scores = [skill.by_model.get(model) for skill in report.skills if skill.kind == "original"]
    known = [score for score in scores if score is not None]
    return fmean(known) if known and len(known) == len(scores) else None


def share(value: float | None) -> str:
    """A score, with two digits."""
    return "–" if value is None else f"{value:.2f}"


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False)
