"""One answer while it streams: its text, what it took, and the proof of which model gave it.

Fed with chunks of the OpenAI streaming format and the time at which each came; knows no network and no page.
A chunk that names another model raises `WrongModel` before a character of it is taken.
"""

import re
from dataclasses import dataclass, field
from typing import Literal, Protocol

from pydantic import BaseModel, Field

from ui.servers import Server

State = Literal["waiting", "streaming", "done", "stopped", "failed"]
_FINGERPRINT_SCALE = re.compile(r"^cllm-[0-9a-f]+-s([0-9.eE+-]+)$")


class WrongModel(ValueError):
    """The server answered as another model than the one asked for."""


class Usage(Protocol):
    """What is read of a chunk's usage."""

    prompt_tokens: int
    completion_tokens: int


class Sampling(BaseModel):
    """What is asked beside the conversation; None leaves a number to the server."""

    system: str = ""
    temperature: float = Field(default=0.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int | None = Field(default=None, ge=1)
    seed: int | None = None


@dataclass(frozen=True)
class Target:
    """A model id, and where it is asked."""

    model: str
    server: Server
    scale: float | None = None  # the control scale that the id stands for; None: not one of our servers
    context: int | None = None  # tokens that prompt and answer have room for, where the server says so

    @property
    def title(self) -> str:
        """What the model is, for a reader."""
        if self.scale is None:
            return f"Model on {self.server.place}"
        return "Base model" if self.scale == 0 else f"Control LLM at scale {self.scale:g}"


class Turn(BaseModel):
    """A prompt, and what came back from which model; what a conversation is kept and exported as."""

    prompt: str
    text: str = ""
    model: str = ""
    title: str = ""
    echoed: str = ""
    server: str = ""
    scale: float | None = None
    sampling: Sampling = Sampling()
    state: State = "done"
    error: str = ""
    fingerprint: str = ""
    finish_reason: str = ""
    first_token_s: float | None = None
    tokens_per_second: float | None = None
    prompt_tokens: int | None = None
    tokens: int = 0
    tokens_are_exact: bool = False


@dataclass
class Answer:
    """Grows in place while the stream runs; `revision` rises whenever there is something new to show."""

    target: Target
    sampling: Sampling = field(default_factory=Sampling)
    text: str = ""
    state: State = "waiting"
    error: str = ""
    echoed: str = ""
    fingerprint: str = ""
    finish_reason: str = ""
    first_token_s: float | None = None
    last_token_s: float | None = None
    prompt_tokens: int | None = None
    tokens: int = 0
    tokens_are_exact: bool = False
    revision: int = 0

    def check(self, echoed: str, fingerprint: str | None) -> None:
        """Refuse a chunk made by another model, by its name or by the scale in its fingerprint.

        Other servers may answer under a longer name than the one asked for; it is kept, to be shown.
        """
        asked, scale = self.target.model, self.target.scale
        if scale is not None and echoed != asked:
            raise WrongModel(f"The server answered as “{echoed}”, but “{asked}” was asked for.")
        match = _FINGERPRINT_SCALE.match(fingerprint or "")
        if match and scale is not None and float(match[1]) != scale:
            raise WrongModel(f"The fingerprint {fingerprint} does not belong to “{asked}”.")
        self.echoed = echoed
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
        self.prompt_tokens = usage.prompt_tokens
        self.tokens, self.tokens_are_exact = usage.completion_tokens, True
        self.revision += 1

    def end(self, state: State, error: str = "") -> None:
        """Close the answer."""
        self.state, self.error = state, error
        self.revision += 1

    @property
    def has_ended(self) -> bool:
        """Whether nothing will be added."""
        return self.state not in ("waiting", "streaming")

    @property
    def tokens_per_second(self) -> float | None:
        """Decoding speed: the tokens after the first, over the time since the first."""
        if self.first_token_s is None or self.last_token_s is None or self.tokens < 2:
            return None
        seconds = self.last_token_s - self.first_token_s
        return (self.tokens - 1) / seconds if seconds > 0 else None

    def turn(self, prompt: str) -> Turn:
        """The answer as it is now, with its prompt."""
        target = self.target
        return Turn(
            prompt=prompt,
            text=self.text,
            model=target.model,
            title=target.title,
            echoed=self.echoed,
            server=target.server.url,
            scale=target.scale,
            sampling=self.sampling,
            state=self.state,
            error=self.error,
            fingerprint=self.fingerprint,
            finish_reason=self.finish_reason,
            first_token_s=self.first_token_s,
            tokens_per_second=self.tokens_per_second,
            prompt_tokens=self.prompt_tokens,
            tokens=self.tokens,
            tokens_are_exact=self.tokens_are_exact,
        )
