"""What can be evaluated: anything that answers questions and weighs texts at a control scale.

`training.evaluation.local` is a model in memory, `training.evaluation.served` one behind our server's HTTP API.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from training.data import Message


@dataclass(frozen=True)
class Question:
    """A conversation to be answered, or a text to be continued, and what is right."""

    prompt: str | tuple[Message, ...]
    answer: str


class Likelihood(NamedTuple):
    """How likely a model finds one text: what `bits per byte` and `token perplexity` are made of.

    Attributes:
        nats: -ln of the probability of all its tokens but the first, which has nothing before it.
        tokens: Number of those tokens.
        bytes: UTF-8 bytes of the text that they stand for.
    """

    nats: float
    tokens: int
    bytes: int


class Target(Protocol):
    """A model under evaluation."""

    def answers(self, questions: Sequence[Question], scale: float) -> list[str]:
        """Greedy answers, in order."""

    def likelihoods(self, texts: Sequence[str], scale: float) -> list[Likelihood]:
        """How likely each text is, in order; see `windows` for long ones."""

    def harness(self, scale: float) -> AbstractContextManager[Any]:
        """Within it, the model at `scale` as a model of the lm-evaluation-harness (`lm_eval.api.model.LM`)."""


def windows(tokens: Sequence[int], width: int) -> list[list[int]]:
    """Cut a text into windows of at most `width` tokens; each starts with the last token of the one before it.

    Every token but the very first is predicted exactly once, from those before it in its window.
    """
    return [list(tokens[start : start + width]) for start in range(0, max(len(tokens) - 1, 1), width - 1)]


def predicted_bytes(text: str, first: str) -> int:
    """Bytes of a text that are predicted: all, unless its first token (as text) is part of it and no start mark."""
    return len(text.encode()) - (len(first.encode()) if text.startswith(first) else 0)
