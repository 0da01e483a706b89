"""One answer while it streams: its text, what it took, and the proof of which model gave it.

Fed with chunks of the OpenAI streaming format and the time at which each came; knows no network and no page.
A chunk that names another model raises `WrongModel` before a character of it is taken.
"""

import re
from dataclasses import dataclass
from typing import Literal, Protocol

State = Literal["waiting", "streaming", "done", "stopped", "failed"]
_FINGERPRINT_SCALE = re.compile(r"^cllm-[0-9a-f]+-s([0-9.eE+-]+)$")


class WrongModel(ValueError):
    """The server answered as another model than the one asked for."""


class Usage(Protocol):
    """What is read of a chunk's usage."""

    completion_tokens: int


@dataclass(frozen=True)
class Target:
    """A model id, and what is known of the model behind it."""

    model: str
    scale: float | None = None  # the control scale that the id stands for
    max_tokens: int | None = None  # None: as long as the context has room


@dataclass
class Answer:
    """Grows in place while the stream runs; `revision` rises whenever there is something new to show."""

    target: Target
    text: str = ""
    state: State = "waiting"
    error: str = ""
    fingerprint: str = ""
    finish_reason: str = ""
    first_token_s: float | None = None
    last_token_s: float | None = None
    tokens: int = 0
    tokens_are_exact: bool = False
    revision: int = 0

    def check(self, echoed: str, fingerprint: str | None) -> None:
        """Refuse a chunk made by another model, by its name or by the scale in its fingerprint."""
        if echoed != self.target.model:
            raise WrongModel(f"The server answered as “{echoed}”, but “{self.target.model}” was asked for.")
        match = _FINGERPRINT_SCALE.match(fingerprint or "")
        if match and self.target.scale is not None and float(match[1]) != self.target.scale:
            raise WrongModel(f"The fingerprint {fingerprint} does not belong to “{self.target.model}”.")
        self.fingerprint = fingerprint or self.fingerprint

    def add(self, text: str, at: float) -> None:
        """Take a piece of text that came `at` seconds after the request."""
        if self.first_token_s is None:
            self.first_token_s = at
        self.state = "streaming"
        self.last_token_s = at
        self.text += text
        self.tokens += 1  # an estimate: a chunk may hold several tokens, the usage corrects it
        self.revision += 1

    def count(self, usage: Usage) -> None:
        """Take the server's own count of tokens."""
        self.tokens, self.tokens_are_exact = usage.completion_tokens, True
        self.revision += 1

    def end(self, state: State, error: str = "") -> None:
        """Close the answer."""
        self.state, self.error = state, error
        self.revision += 1

    @property
    def tokens_per_second(self) -> float | None:
        """Decoding speed: the tokens after the first, over the time since the first."""
        if self.first_token_s is None or self.last_token_s is None or self.tokens < 2:
            return None
        seconds = self.last_token_s - self.first_token_s
        return (self.tokens - 1) / seconds if seconds > 0 else None
