"""Word by word, what the right answer has that the left has not, and the other way round."""

import re
from difflib import SequenceMatcher
from html import escape

from ui.answer import Turn

_WORDS = re.compile(r"\S+\s*|\s+")
_LONGEST = 5000  # words: comparing takes time quadratic in them


def difference(left: Turn | None, right: Turn | None) -> str:
    """Return both newest answers as one text, with what only one of them has marked as such."""
    if left is None or right is None or not (left.text and right.text):
        return '<p class="hint">The differences appear here once both sides have answered.</p>'
    words = _WORDS.findall(left.text), _WORDS.findall(right.text)
    if max(map(len, words)) > _LONGEST:
        return f'<p class="hint">An answer is longer than {_LONGEST} words: too long to compare.</p>'
    note = "" if left.prompt == right.prompt else '<p class="hint">The two sides were asked different prompts.</p>'
    legend = (
        f'<p class="legend"><del>struck</del> only left: <code>{escape(left.model)}</code> · '
        f"<ins>underlined</ins> only right: <code>{escape(right.model)}</code></p>"
    )
    if left.text == right.text:
        return f'{note}{legend}<p class="hint">The two answers are the same, to the letter.</p>'
    return f'{note}{legend}<div class="text diff">{"".join(_pieces(*words))}</div>'


def _pieces(left: list[str], right: list[str]) -> list[str]:
    # Words count, not the blanks behind them.
    matcher = SequenceMatcher(None, [w.strip() for w in left], [w.strip() for w in right], autojunk=False)
    pieces = []
    for kind, a, b, c, d in matcher.get_opcodes():
        if kind == "equal":
            pieces.append(escape("".join(right[c:d])))
            continue
        pieces += [_marked("del", left[a:b])] if b > a else []
        pieces += [_marked("ins", right[c:d])] if d > c else []
    return pieces


def _marked(tag: str, words: list[str]) -> str:
    text = "".join(words)
    bare = text.rstrip()
    return f"<{tag}>{escape(bare)}</{tag}>{escape(text[len(bare) :])}"
