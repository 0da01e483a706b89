"""What a report comes to, as tables and lines for a terminal: one run, or two side by side."""

from collections.abc import Sequence

from training.report.differences import differences
from training.report.page import MODELS, mean, models, share, skill_rows
from training.report.schema import Report, SkillReport


def rows(named: Sequence[tuple[str, Report]]) -> tuple[list[str], list[list[str]]]:
    """Head and rows of a table: one row for each skill, the columns of each report side by side."""
    reports = [report for _, report in named]
    head, columns = ["skill"], [models(report) for report in reports]
    for (name, _), own in zip(named, columns, strict=True):
        mark = f"{name}: " if len(named) > 1 else ""
        head += [f"{mark}n", *(mark + MODELS.get(model, model) for model in own)]
    lines = []
    for row in skill_rows(reports):
        known = next(skill for skill in row if skill is not None)
        line = [f"{known.label} (new)" if known.kind == "new" else known.label]
        for skill, own in zip(row, columns, strict=True):
            line += _cells(skill, own)
        lines.append(line)
    means = ["mean of the original skills"]
    for report, own in zip(reports, columns, strict=True):
        means += ["", *(share(mean(report, model)) for model in own)]
    return head, [*lines, means]


def _cells(skill: SkillReport | None, models: Sequence[str]) -> list[str]:
    if skill is None:
        return ["–"] * (len(models) + 1)
    shown = [str(skill.prompts)]
    for model in models:
        interval = skill.intervals.get(model)
        score = share(skill.by_model.get(model))
        shown.append(score if interval is None else f"{score} [{share(interval.low)}, {share(interval.high)}]")
    return shown


def facts(report: Report) -> list[str]:
    """What else there is to know of a run, in lines."""
    lines = [f"checkpoint {report.checkpoint}, {report.created}, code {report.git_commit or 'of no recorded commit'}"]
    chosen = report.recommendation
    why = "as trained, nothing else was measured" if chosen is None else f"{chosen.split} split"
    lines.append(f"recommended scale {report.recommended_scale:g} ({why})")
    if report.training.best_step is not None:
        lines.append(f"weights of step {report.training.best_step} of {report.training.steps}")
    lines += [f"check {name}: {difference:.2g}" for name, difference in report.checks.items()]
    lines += [f"check {name}: left out, {reason}" for name, reason in report.checks_skipped.items()]
    return lines


def changed(named: Sequence[tuple[str, Report]]) -> tuple[list[str], list[list[str]]]:
    """Head and rows of a table: where the recipes of two reports differ."""
    (a, first), (b, second) = named
    found = differences(first.recipe, second.recipe)
    return ["recipe", a, b], [[field, *values] for field, values in found.items()]
