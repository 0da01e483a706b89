"""Conversations as JSONL and as Markdown, and names for the files. Holds no keys: a turn has none."""

import json
import re
from collections.abc import Mapping

from ui.answer import Turn

DEFAULT_NAME = "comparison"
_LONGEST_NAME = 80
_UNFIT = re.compile(r"[^\w .()+-]+")  # \w: letters of all scripts
_FENCES = re.compile(r"`{3,}")


def file_name(wanted: str, extension: str) -> str:
    """Return a name that is one file's on every system: no path, no hidden file, no control character."""
    stem = wanted.strip().removesuffix(f".{extension}")
    stem = _UNFIT.sub("-", stem).strip(" .-")[:_LONGEST_NAME].strip(" .-")
    return f"{stem or DEFAULT_NAME}.{extension}"


def as_jsonl(sides: Mapping[str, list[Turn]]) -> str:
    """Return one line for each turn: the side, the prompt, the answer, and all that says how it was made."""
    lines = [{"side": side, **turn.model_dump()} for side, turns in sides.items() for turn in turns]
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def as_markdown(sides: Mapping[str, list[Turn]]) -> str:
    """Return the conversations for a reader; prompts and answers stand in fences, to the letter."""
    parts = ["# Comparison"]
    for side, turns in sides.items():
        parts.append(f"## {side.capitalize()}")
        for number, turn in enumerate(turns, 1):
            parts += [f"### {number}. Prompt", _fenced(turn.prompt), f"### {number}. {_heading(turn)}"]
            parts += [_fenced(turn.text)] if turn.text else []
            parts.append(_facts(turn))
    return "\n\n".join(parts) + "\n"


def _heading(turn: Turn) -> str:
    return f"{turn.title}: `{turn.model}`" if turn.model else "No model was asked"


def _facts(turn: Turn) -> str:
    facts = [
        ("answered as", turn.echoed if turn.echoed != turn.model else ""),
        ("server", turn.server),
        ("state", turn.state),
        ("error", turn.error),
        ("fingerprint", turn.fingerprint),
        ("system prompt", turn.sampling.system),
        ("temperature", f"{turn.sampling.temperature:g}"),
        ("top_p", f"{turn.sampling.top_p:g}"),
        ("max tokens", turn.sampling.max_tokens),
        ("seed", turn.sampling.seed),
        ("first token", turn.first_token_s and f"{turn.first_token_s:.3f} s"),
        ("speed", turn.tokens_per_second and f"{turn.tokens_per_second:.1f} tokens/s"),
        ("prompt tokens", turn.prompt_tokens),
        ("answer tokens", turn.tokens),
    ]
    return "\n".join(f"- {name}: {' '.join(str(value).split())}" for name, value in facts if value not in (None, ""))


def _fenced(text: str) -> str:
    longest = max(map(len, _FENCES.findall(text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}text\n{text}\n{fence}"
