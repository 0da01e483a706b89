"""What an evaluation found: one flat row for each figure, and the file that holds them with what they are about."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Measure(_Part):
    """One figure of one suite at one scale, with its 95 % interval."""

    suite: str
    part: str = Field(default="", description="domain of the texts, or task of a group; empty: all of the suite")
    metric: str = Field(description="exact_match, bits_per_byte, token_perplexity, or the harness's own name")
    scale: float
    value: float
    low: float | None = Field(default=None, description="None where nothing can be said, as of a single text")
    high: float | None = None
    interval: Literal["wilson", "bootstrap", "standard error"] | None = None
    count: int = Field(description="questions or texts that the figure stands on")


class SuiteFacts(_Part):
    """What a suite is: files by their name and content, never by their place."""

    name: str
    kind: Literal["exact match", "perplexity", "lm-eval"]
    source: str
    sha256: str | None = Field(default=None, description="of the whole file, though `limit` may leave some of it out")
    count: int | None = Field(default=None, description="questions or texts used; a harness's task counts its own")


class Results(_Part):
    """The file that `cllm eval` writes."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    created: str
    model: str = Field(description="name of the checkpoint's directory, or address of the server")
    checkpoint: str | None = Field(description="hash of the checkpoint's files")
    backend: Literal["transformers", "server"]
    scales: list[float]
    suites: list[SuiteFacts]
    measures: list[Measure]
    settings: dict[str, int | None]
    environment: dict[str, str]
