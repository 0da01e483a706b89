"""A prompt or an answer as HTML: to the letter, or as Markdown that can neither run nor load anything."""

from html import escape

from markdown_it import MarkdownIt

LONGEST_PROMPT = 6000  # characters of a prompt that are shown; all of it is sent

# Tags stay text. An image would be loaded from wherever an answer says, and tell that place who reads it.
_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")


def plain(text: str) -> str:
    """Return the text to the letter, blanks and line ends included."""
    return f'<div class="text">{escape(text)}</div>'


def markdown(text: str) -> str:
    """Return the text as Markdown, with tags in it shown as text; links open elsewhere and tell nothing."""
    rendered = _MARKDOWN.render(text)
    return f'<div class="text markdown">{rendered.replace("<a ", _LINK)}</div>'


def shown(text: str, as_markdown: bool) -> str:
    """Return the text in the way that the reader chose."""
    return markdown(text) if as_markdown else plain(text)


def shortened(text: str) -> str:
    """Return the beginning of a very long prompt, and how much was left out."""
    if len(text) <= LONGEST_PROMPT:
        return text
    return f"{text[:LONGEST_PROMPT]}\n… ({len(text) - LONGEST_PROMPT:,} more characters were sent)".replace(",", " ")


_LINK = '<a target="_blank" rel="noopener noreferrer nofollow" '
