"""Small pieces of HTML: status line, pane title, footer of an answer, score tables, recorded card.

Pure functions of plain data; everything that came from a server or a user is escaped here and nowhere else.
"""

import re
from html import escape
from inspect import cleandoc

from ui.answer import Answer, Target
from ui.client import ServerInfo
from ui.report import BASE, CONTROL, FULL, Kind, Report

COLUMN_TITLES = {BASE: "Base", CONTROL: "Control LLM", FULL: "Full fine-tuning"}
KIND_TITLES: dict[Kind, str] = {"original": "Old skills", "new": "New skills"}
KIND_VERBS: dict[Kind, str] = {"original": "to be kept", "new": "to be learned"}
_ENTITIES = {" ": "&#32;", "\t": "&#9;", "\n": "&#10;"}
_CODE = re.compile(r"(```.*?(?:```|$)|`[^`\n]+`)", re.DOTALL)


def status(info: ServerInfo, api_url: str) -> str:
    """One line: what is being talked to, or why nothing is."""
    if info.ready:
        return f'<div class="status ok"><i></i>Connected to <code>{escape(api_url)}</code></div>'
    return f'<div class="status waiting" role="status"><i></i>{escape(info.problem)}</div>'


def pane_title(heading: str, target: Target | None) -> str:
    """The pane's name and the model id that it asks for."""
    chip = f"<code>{escape(target.model)}</code>" if target else "<code>not connected</code>"
    return f'<div class="pane-title"><b>{escape(heading)}</b>{chip}</div>'


def message(text: str, markdown: bool) -> str:
    """A prompt or an answer for the chat component, which takes HTML tags for HTML: show them as text."""
    if not markdown:
        shown = escape(text, quote=False)
        # Gradio passes every message through cleandoc, which would eat indentation and blank lines.
        return shown if shown == cleandoc(shown) else "".join(_ENTITIES.get(char, char) for char in shown)
    parts = _CODE.split(text)  # code is already literal in Markdown; splits at odd places are code
    return "".join(part if place % 2 else part.replace("<", "&lt;") for place, part in enumerate(parts))


def answer_footer(answer: Answer | None) -> str:
    """The numbers under an answer, and its error where there is one."""
    if answer is None:
        return '<div class="stats"><span>&nbsp;</span></div>'
    if answer.state == "waiting":
        return '<div class="stats"><span class="pulse">waiting for the first token …</span></div>'
    facts = []
    if answer.first_token_s is not None:
        facts.append(("first token", _seconds(answer.first_token_s)))
    if answer.tokens_per_second is not None:
        facts.append(("speed", f"{answer.tokens_per_second:.1f} tokens/s"))
    if answer.tokens or answer.state == "done":
        facts.append(("length", f"{'' if answer.tokens_are_exact else '≈ '}{answer.tokens} tokens"))
    if answer.state == "stopped":
        facts.append(("", "stopped"))
    if answer.finish_reason == "length":
        facts.append(("", "cut at the length limit"))
    if answer.fingerprint:
        facts.append(("fingerprint", answer.fingerprint))
    spans = "".join(f"<span><em>{label}</em> {escape(value)}</span>" for label, value in facts)
    problem = f'<div class="pane-error" role="alert">{escape(answer.error)}</div>' if answer.error else ""
    return f'{problem}<div class="stats">{spans}</div>'


def summary(report: Report | None) -> str:
    """Kept and learned in one small table: means over the old and over the new skills."""
    if report is None:
        return ""
    columns = _columns(report)
    rows = []
    for kind, title in KIND_TITLES.items():
        number = sum(skill.kind == kind for skill in report.skills)
        if number:
            head = f"{title} <small>{KIND_VERBS[kind]} · mean of {number}</small>"
            rows.append(_row(head, [report.mean(kind, column) for column in columns]))
    return _table(columns, rows)


def per_skill(report: Report | None) -> str:
    """Every skill on a line of its own."""
    if report is None:
        return ""
    columns = _columns(report)
    rows = [
        _row(f"{escape(s.title)} <small>{KIND_VERBS[s.kind]}</small>", [s.scores.get(c) for c in columns])
        for s in report.skills
    ]
    return _table(columns, rows)


def recorded(report: Report | None, prompt: str) -> str:
    """What full fine-tuning answered to this prompt when the checkpoint was trained."""
    if report is None or not report.has_recording:
        return ""
    example = report.example_for(prompt) if prompt else None
    if example is None:
        hint = (
            "There is no recording for this prompt: only the examples were recorded."
            if prompt
            else "Choose an example: what full fine-tuning answered to it appears here."
        )
        return f'<div class="recorded-body"><p class="hint">{hint}</p></div>'
    answer = example.answers.get(FULL)
    body = f'<pre class="answer">{escape(answer)}</pre>' if answer else '<p class="hint">(empty answer)</p>'
    if answer is None:
        body = '<p class="hint">Nothing was recorded.</p>'
    expected = f"<h4>Right answer</h4><pre>{escape(example.expected)}</pre>" if example.expected else ""
    return (
        f'<div class="recorded-body"><h4>Prompt</h4><pre>{escape(example.prompt)}</pre>'
        f"<h4>It answered</h4>{body}{expected}</div>"
    )


def _columns(report: Report) -> list[str]:
    present = {c for skill in report.skills for c, score in skill.scores.items() if score is not None}
    return [c for c in COLUMN_TITLES if c in present] + sorted(present - set(COLUMN_TITLES))


def _row(head: str, scores: list[float | None]) -> str:
    return f'<tr><th scope="row">{head}</th>{"".join(map(_cell, scores))}</tr>'


def _cell(score: float | None) -> str:
    if score is None:
        return "<td>–</td>"
    return f'<td style="--share:{min(max(score, 0.0), 1.0):.3f}">{_percent(score)}</td>'


def _table(columns: list[str], rows: list[str]) -> str:
    names = [COLUMN_TITLES.get(column, column.replace("_", " ").capitalize()) for column in columns]
    titles = "".join(f'<th scope="col">{escape(name)}</th>' for name in ["Skill", *names])
    body = "".join(rows)
    return f'<table class="scores"><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>'


def _percent(score: float) -> str:
    text = f"{100 * score:.1f}".removesuffix(".0")
    return f"{text} %"


def _seconds(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"
