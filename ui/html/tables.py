"""Tables: scores of a report, live results of the skills, rows of a sweep, standings of the votes."""

from collections.abc import Sequence
from html import escape

from ui.answer import Turn
from ui.html.text import plain
from ui.html.transcript import footer
from ui.report import BASE, CONTROL, FULL, Kind, Report, Skill
from ui.skills import Run, Tally
from ui.votes import Standing

COLUMN_TITLES = {BASE: "Base", CONTROL: "Control LLM", FULL: "Full fine-tuning"}
KIND_TITLES: dict[Kind, str] = {"original": "Old skills", "new": "New skills"}
KIND_VERBS: dict[Kind, str] = {"original": "to be kept", "new": "to be learned"}
_KIND_DONE: dict[Kind, str] = {"original": "Kept", "new": "Learned"}


def scores(report: Report | None) -> str:
    """Return what each model scored in training: the means over old and new skills, then every skill."""
    if report is None or not report.skills:
        return '<p class="hint">The checkpoint has no scores.</p>'
    columns = _columns(report)
    body = ""
    for kind, heading in KIND_TITLES.items():
        skills = [skill for skill in report.skills if skill.kind == kind]
        if skills:
            head = f"{heading} <small>{KIND_VERBS[kind]} · mean of {len(skills)}</small>"
            body += _row(head, [_share(report.mean(kind, column)) for column in columns], "mean")
            body += "".join(_row(escape(s.title), [_share(s.by_model.get(c)) for c in columns]) for s in skills)
    return _table("Scores", ["Skill", *map(_column_title, columns)], body)


def live_skills(skills: Sequence[Skill], runs: Sequence[Run]) -> str:
    """Return how the skills fared live: a column for each scale that was run, beside what the report recorded."""
    if not skills:
        return '<p class="hint">There are no held-out prompts: the report has none, and no file was given.</p>'
    recorded = [c for c in (BASE, CONTROL) if any(skill.scores.get(c) is not None for skill in skills)]
    heads = ["Skill", *(f"{COLUMN_TITLES[c]} in training" for c in recorded)]
    heads += [f"Live at {run.scale:g}" for run in runs]
    body = ""
    for kind, verb in _KIND_DONE.items():
        group = [skill for skill in skills if skill.kind == kind]
        if not group:
            continue
        means = [_share(_mean([skill.scores.get(c) for skill in group])) for c in recorded]
        means += [_share(run.mean(list(skills), kind)) for run in runs]
        body += _row(f"{verb} <small>mean of {len(group)}</small>", means, "mean")
        for skill in group:
            cells = [_share(skill.scores.get(c)) for c in recorded]
            cells += [_tally(run.tallies.get(skill.name, Tally()), len(skill.prompts_sample)) for run in runs]
            body += _row(escape(skill.title), cells)
    return _table("Kept and learned", heads, body)


def sweep(turns: Sequence[Turn], recommended: float) -> str:
    """Return a row for each turn, which says its control scale: the answer there, and what it took."""
    body = ""
    for turn in turns:
        mark = " <small>recommended</small>" if turn.scale == recommended else ""
        answer = plain(turn.text) if turn.text else ""
        body += (
            f'<tr data-state="{turn.state}"><th scope="row">{turn.scale:g}{mark}<code>{escape(turn.model)}</code></th>'
            f"<td>{answer}{footer(turn)}</td></tr>"
        )
    return _table("Sweep of the dial", ["Scale", "Answer"], body, "sweep")


def standings(rows: Sequence[Standing]) -> str:
    """Return the tally of votes."""
    if not rows:
        return '<p class="hint">No vote was cast yet.</p>'
    heads = ["Model", "better", "tie", "worse", "than"]
    body = "".join(
        _row(escape(row.first), [f"<td>{n}</td>" for n in (row.wins, row.ties, row.losses)])[: -len("</tr>")]
        + f"<td>{escape(row.second)}</td></tr>"
        for row in rows
    )
    return _table("Votes", heads, body)


def _columns(report: Report) -> list[str]:
    present = {c for skill in report.skills for c, score in skill.by_model.items() if score is not None}
    return [c for c in COLUMN_TITLES if c in present] + sorted(present - set(COLUMN_TITLES))


def _column_title(column: str) -> str:
    return COLUMN_TITLES.get(column, column.replace("_", " ").capitalize())


def _mean(scores: Sequence[float | None]) -> float | None:
    measured = [score for score in scores if score is not None]
    return sum(measured) / len(measured) if measured else None


def _row(head: str, cells: Sequence[str], kind: str = "") -> str:
    return f'<tr class="{kind}"><th scope="row">{head}</th>{"".join(cells)}</tr>'


def _share(share: float | None) -> str:
    if share is None:
        return "<td>–</td>"
    return f'<td style="--share:{min(max(share, 0.0), 1.0):.3f}">{percent(share)}</td>'


def _tally(tally: Tally, number: int) -> str:
    failed = f" <small>{tally.failed} failed</small>" if tally.failed else ""
    if tally.share is None:
        return f"<td>–{failed}</td>"
    running = "" if tally.asked + tally.failed == number else f" <small>of {number}</small>"
    return f'<td style="--share:{tally.share:.3f}">{tally.right}/{tally.asked}{running}{failed}</td>'


def _table(name: str, heads: Sequence[str], body: str, kind: str = "scores") -> str:
    titles = "".join(f'<th scope="col">{escape(head)}</th>' for head in heads)
    table = f'<table class="{kind}"><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>'
    # Wider than a narrow screen: scrolled by itself, with the keyboard too.
    return f'<div class="scrolled" tabindex="0" role="region" aria-label="{escape(name)}">{table}</div>'


def percent(share: float) -> str:
    """Return a share for a reader, with one decimal where it says something."""
    text = f"{100 * share:.1f}".removesuffix(".0")
    return f"{text} %"
