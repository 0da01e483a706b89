"""One answer while it streams: its text, what it took, and the proof of which model gave it.

Fed with chunks of the OpenAI streaming format and the time at which each came; knows no network and no page.
A chunk that names another model raises `WrongModel` before a character of it is taken.
"""

import re
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, Field

from ui.servers import Server

State = Literal["waiting", "streaming", "done", "stopped", "failed"]
_FINGERPRINT_SCALE = re.compile(r"^cllm-[0-9a-f]+-s([0-9.eE+-]+)$")


class WrongModel(ValueError):
    """The server answered as another model than the one asked for."""


class Usage(BaseModel):
    """The server's count of tokens, as far as it counts."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None


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
    """A prompt, and what came back from which model; what a conversation is shown, kept and exported as."""

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

    @property
    def has_ended(self) -> bool:
        """Whether nothing will be added."""
        return self.state not in ("waiting", "streaming")


class Answer:
    """A turn that grows while its stream runs; `revision` rises whenever there is something new to show.

    Args:
        target: Who is asked.
        prompt: What is asked.
        sampling: How.
    """

    def __init__(self, target: Target, prompt: str, sampling: Sampling) -> None:
        self.target = target
        self.turn = Turn(
            prompt=prompt,
            model=target.model,
            title=target.title,
            server=target.server.url,
            scale=target.scale,
            sampling=sampling,
            state="waiting",
        )
        self.revision = 0
        self._last_token_s = 0.0

    def check(self, echoed: str, fingerprint: str | None) -> None:
        """Refuse a chunk made by another model, by its name or by the scale in its fingerprint.

        Other servers may answer under a longer name than the one asked for; it is kept, to be shown.

        Raises:
            WrongModel: It was made by another one, or one of our servers does not say by which.
        """
        asked, turn = self.target, self.turn
        mark = fingerprint or turn.fingerprint  # the first chunk has one, later ones may have none
        if asked.scale is not None:
            if echoed != asked.model:
                raise WrongModel(f"The server answered as “{echoed}”, but “{asked.model}” was asked for.")
            scale = _FINGERPRINT_SCALE.match(mark)
            if scale is None or float(scale[1]) != asked.scale:
                raise WrongModel(f"The fingerprint “{mark}” does not belong to “{asked.model}”.")
        turn.echoed, turn.fingerprint = echoed, mark

    def add(self, text: str, at: float) -> None:
        """Take a piece of text that came `at` seconds after the request."""
        turn = self.turn
        if turn.first_token_s is None:
            turn.first_token_s = at
        turn.state = "streaming"
        turn.text += text
        turn.tokens += 1  # an estimate: a chunk may hold several tokens, the usage corrects it
        self._last_token_s = at
        self._grown()

    def count(self, usage: Usage) -> None:
        """Take the server's own count of tokens."""
        self.turn.prompt_tokens = usage.prompt_tokens
        if usage.completion_tokens is not None:
            self.turn.tokens, self.turn.tokens_are_exact = usage.completion_tokens, True
        self._grown()

    def end(self, state: State, error: str = "") -> None:
        """Close the answer, unless it is closed."""
        if not self.turn.has_ended:
            self.turn.state, self.turn.error = state, error
            self.revision += 1

    def _grown(self) -> None:
        """Measure the decoding speed: the tokens after the first, over the time since the first."""
        turn = self.turn
        seconds = self._last_token_s - (turn.first_token_s or 0.0)
        if turn.tokens > 1 and seconds > 0:
            turn.tokens_per_second = (turn.tokens - 1) / seconds
        self.revision += 1
