"""The page's small parts: status line, marks under a slider, the card of what full fine-tuning answered, facts."""

from collections.abc import Mapping, Sequence
from html import escape

from ui.info import Dial, ServerInfo
from ui.report import FULL, Report


def status(info: ServerInfo) -> str:
    """Return one line: what is being talked to, or why nothing is."""
    if not info.ready:
        return f'<div class="status waiting" role="status"><i></i>{escape(info.problem)}</div>'
    what = "" if info.dial else " · no dial there: ask it by a model's name, as “Other”"
    return (
        f'<div class="status ok" role="status"><i></i>Connected to <code>{escape(info.server.url)}</code>{what}</div>'
    )


def ticks(dial: Dial) -> str:
    """Return the marks that stand under a dial's slider: base, as trained, recommended."""
    names = {0.0: "base", 1.0: "as trained"}
    if dial.recommended in names:
        names[dial.recommended] += ", recommended"
    else:
        names[dial.recommended] = "recommended"
    width = dial.most - dial.least
    spots = "".join(
        f'<span class="{"best" if scale == dial.recommended else ""}" style="--at:{(scale - dial.least) / width:.4f}">'
        f"{escape(name)}</span>"
        for scale, name in sorted(names.items())
        if dial.least <= scale <= dial.most
    )
    return f'<div class="ticks">{spots}</div>'


def note(text: str, *, is_error: bool = False) -> str:
    """Return a line that answers to what the reader just did."""
    if not text:
        return ""
    return f'<div class="{"pane-error" if is_error else "note"}" role="status">{escape(text)}</div>'


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """Return names and values."""
    return f'<dl class="facts">{"".join(f"<div><dt>{escape(n)}</dt><dd>{escape(v)}</dd></div>" for n, v in pairs)}</dl>'


def legend(colours: Mapping[str, str]) -> str:
    """Return the names of a plot's lines beside their colours."""
    lines = "".join(f'<li style="--line-color:{colour}">{escape(name)}</li>' for name, colour in colours.items())
    return f'<ul class="plot-legend">{lines}</ul>'


def recorded(report: Report | None, prompt: str) -> str:
    """Return what full fine-tuning answered to this prompt when the checkpoint was trained."""
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
    expected = f"<h3>Right answer</h3><pre>{escape(example.expected)}</pre>" if example.expected else ""
    return (
        f'<div class="recorded-body"><h3>Prompt</h3><pre>{escape(example.prompt)}</pre>'
        f"<h3>It answered</h3>{body}{expected}</div>"
    )
