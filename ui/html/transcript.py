"""One side's conversation: each prompt, each answer under the name of the model that gave it, and what it took."""

from collections.abc import Sequence
from html import escape

from ui.answer import Turn
from ui.html.text import shortened, shown

EMPTY_ANSWER = '<div class="text hint">(empty answer)</div>'


def transcript(side: str, turns: Sequence[Turn], *, hint: str, as_markdown: bool) -> str:
    """Return a conversation, newest last; `hint` stands where there is none yet."""
    inner = "".join(_turn(turn, as_markdown) for turn in turns) or f'<p class="hint">{escape(hint)}</p>'
    # Focusable, because a reader without a mouse scrolls it with the arrow keys.
    return (
        f'<div class="log" role="log" tabindex="0" aria-label="{escape(side)}: conversation"><div>{inner}</div></div>'
    )


def title(side: str, heading: str, model: str) -> str:
    """Return a side's heading: who will be asked next."""
    chip = f"<code>{escape(model)}</code>" if model else ""
    return f'<div class="pane-title"><h2><span class="side">{escape(side)}</span> {escape(heading)}</h2>{chip}</div>'


def footer(turn: Turn) -> str:
    """Return the numbers under an answer, and its error where there is one."""
    if turn.state == "waiting":
        return '<div class="stats"><span class="pulse">waiting for the first token …</span></div>'
    spans = "".join(f"<span><em>{label}</em> {escape(value)}</span>" for label, value in _facts(turn))
    problem = f'<div class="pane-error" role="alert">{escape(turn.error)}</div>' if turn.error else ""
    return f'{problem}<div class="stats">{spans}</div>' if spans else problem


def _turn(turn: Turn, as_markdown: bool) -> str:
    asked = f'<div class="said user">{shown(shortened(turn.prompt), as_markdown=False)}</div>'
    by = f'<div class="by">{escape(turn.title)} <code>{escape(_name(turn))}</code></div>' if turn.model else ""
    if turn.text:
        answer = f'<div class="said bot">{shown(turn.text, as_markdown)}</div>'
    else:
        answer = f'<div class="said bot">{EMPTY_ANSWER}</div>' if turn.state == "done" else ""
    return f'<section class="turn" data-state="{turn.state}">{asked}{by}{answer}{footer(turn)}</section>'


def _name(turn: Turn) -> str:
    return turn.model if turn.echoed in ("", turn.model) else f"{turn.model}, answered as {turn.echoed}"


def _facts(turn: Turn) -> list[tuple[str, str]]:
    facts = []
    if turn.first_token_s is not None:
        facts.append(("first token", seconds(turn.first_token_s)))
    if turn.tokens_per_second is not None:
        facts.append(("speed", f"{turn.tokens_per_second:.1f} tokens/s"))
    if turn.prompt_tokens is not None:
        facts.append(("prompt", _tokens(turn.prompt_tokens)))
    if turn.tokens or turn.state == "done":
        facts.append(("answer", f"{'' if turn.tokens_are_exact else '≈ '}{_tokens(turn.tokens)}"))
    if turn.state == "stopped":
        facts.append(("", "stopped"))
    if turn.finish_reason == "length":
        facts.append(("", "cut at the length limit"))
    if turn.fingerprint:
        facts.append(("fingerprint", turn.fingerprint))
    return facts


def _tokens(number: int) -> str:
    return f"{number} token" if number == 1 else f"{number} tokens"


def seconds(value: float) -> str:
    """Return a time for a reader."""
    return f"{1000 * value:.0f} ms" if value < 1 else f"{value:.2f} s"
