"""What of its own a base model writes to be rehearsed, how much of it, and how strictly."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from training.recipe.section import Section


class Rehearsal(Section):
    """Self-rehearsal: the base answers requests, and the model in training is held to its predictions.

    A controlled model that is trained further is its own base here: it answers as it was before.

    The rehearsed share of an update is `batch_size` over `batch_size + train.batch_size`.
    """

    sources: list[Literal["sampled", "random", "file"]] = Field(
        default=["sampled"],
        min_length=1,
        description="of the requests, in turn: the base behind its chat template, chance (random tokens), a file",
    )
    file: Path | None = Field(default=None, description='JSONL with a "prompt" in each line, for source "file"')
    random_tokens: tuple[int, int] = Field(
        default=(3, 7), description='fewest and most tokens of a request, for source "random"'
    )
    alphabet: str | None = Field(
        default=None, description='text of whose tokens source "random" makes requests; all ordinary tokens by default'
    )
    sequences: int = Field(default=2048, gt=0, description="size of the pool")
    batch_size: int = Field(default=16, gt=0, description="sequences per update; a multiple of train.accumulation")
    temperature: float = Field(default=1.0, gt=0)
    max_tokens: int = Field(
        default=160, gt=0, description="of a sequence at most; a chat that has not ended by then is left out"
    )
    top_k: int = Field(default=32, gt=0, description="predictions kept of each position; the rest counts as one class")
    kl: float = Field(default=1.0, ge=0, description="weight of KL(base || model)")
    gate: float = Field(default=1.0, ge=0, description="weight of the mean interpolation weight")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if len(set(self.sources)) != len(self.sources):
            raise ValueError(f"`sources` {self.sources}: each once")
        if ("file" in self.sources) != (self.file is not None):
            raise ValueError(f'`file` ({self.file}) goes with source "file", and `sources` are {self.sources}')
        fields = type(self).model_fields
        for name in ("random_tokens", "alphabet"):
            if "random" not in self.sources and getattr(self, name) != fields[name].default:
                raise ValueError(f'`{name}` is for source "random", and `sources` are {self.sources}')
        fewest, most = self.random_tokens
        if not 1 <= fewest <= most:
            raise ValueError(f"`random_tokens` {self.random_tokens}: expected 1 <= fewest <= most")
        return self
