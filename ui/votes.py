"""Votes on pairs of answers, appended to a local file, one line of JSON each, and their tally. Opt-in.

A line holds the prompt and both answers, so that a vote can be understood later; nothing leaves the machine.
"""

import json
import threading
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from ui.answer import Turn

Verdict = Literal["left", "tie", "right"]


@dataclass(frozen=True)
class Standing:
    """How one model fared against another."""

    first: str
    second: str
    wins: int
    ties: int
    losses: int


class Ballot:
    """The file of votes.

    Args:
        path: Where votes are appended; made with the first one, readable by its owner only.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()

    def cast(self, verdict: Verdict, left: Turn, right: Turn) -> None:
        """Append a vote.

        Raises:
            ValueError: The two turns do not answer the same prompt, or one has no answer.
            OSError: The file cannot be written.
        """
        if left.prompt != right.prompt or not all(turn.text and turn.has_ended for turn in (left, right)):
            raise ValueError("Ask both sides the same prompt and wait for both answers before you vote.")
        vote = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "vote": verdict,
            "prompt": left.prompt,
            "left": _side(left),
            "right": _side(right),
        }
        with self._lock:
            self.path.touch(mode=0o600)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(vote, ensure_ascii=False) + "\n")

    def standings(self) -> list[Standing]:
        """Return the tally of each pair of models, whichever side each stood on; other lines are passed over."""
        counts: dict[tuple[str, str], Counter[str]] = {}
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() else []
        for line in lines:
            try:
                vote = json.loads(line)
                sides = {"left": str(vote["left"]["model"]), "right": str(vote["right"]["model"])}
                winner = sides.get(vote["vote"], "")
            except (ValueError, KeyError, TypeError):
                continue
            first, second = sorted(sides.values())
            counts.setdefault((first, second), Counter())[winner] += 1
        return [
            Standing(first, second, found[first], found[""], found[second] if second != first else 0)
            for (first, second), found in sorted(counts.items())
        ]


def _side(turn: Turn) -> dict[str, object]:
    facts = turn.model_dump(include={"model", "server", "fingerprint", "sampling"})
    return {**facts, "answer": turn.text}
