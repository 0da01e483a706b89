"""What is learned from, and what the model is held to.

`data` says what is learned from: any number of files or Hub datasets with a weight each. It is all that a user with a
JSONL file has to write, besides the base: `data: {sources: [{path: my.jsonl}]}`. Replay of old skills is one more
source with a small weight.

`new` and `originals` say which skills are scored, alone and before and after. A recipe without `data` learns from `new`
(a demo skill, or `new.train`, which is short for `data` with that one source); with `data`, both may be left out.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from training.recipe.section import Section

SkillName = Literal["reverse", "add", "compare", "capitals", "letters", "count", "help", "smalltalk", "tavi"]
FormatName = Literal["text", "chat", "prompt_completion", "sharegpt", "alpaca"]


class FileSkill(Section):
    """A skill read from JSONL files of chat messages; the last message is the answer."""

    name: str = Field(pattern=r"^[a-z0-9_-]+$")
    label: str = ""
    train: Path | None = None
    validation: Path | None = None
    test: Path


class Source(Section):
    """Examples of one kind: a local file, a directory of such files, or a dataset of the Hugging Face Hub."""

    path: Path | None = Field(default=None, description="a .jsonl or .parquet file, or a directory of such")
    hub: Annotated[str, Field(pattern=r"^[\w.-]+(/[\w.-]+)?$")] | None = Field(default=None, description="OWNER/NAME")
    config: str | None = Field(default=None, description="of the Hub dataset")
    revision: str | None = Field(default=None, description="of the Hub dataset: a commit, a tag or a branch")
    split: str | None = Field(default_factory=lambda given: "train" if given.get("hub") else None)
    weight: float = Field(
        default=1.0, gt=0, allow_inf_nan=False, description="how often it is drawn from, relative to the other sources"
    )
    format: Literal["auto"] | FormatName = Field(default="auto", description="auto: told by the first example's fields")
    max_examples: int | None = Field(default=None, gt=0, description="read the first so many only")

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.path is None) == (self.hub is None):
            raise ValueError("give one of `path` (a file or directory) and `hub` (OWNER/NAME)")
        for field in ("config", "revision", "split"):
            if self.path is not None and getattr(self, field) is not None:
                raise ValueError(f"`{field}` goes with `hub`, and this source is a `path`")
        return self

    @property
    def label(self) -> str:
        """What the source is called in messages and reports, without the directories of this machine."""
        return self.path.name if self.path is not None else f"{self.hub}:{self.split}"


class Data(Section):
    """The training data, and how it becomes rows of tokens."""

    sources: list[Source] = Field(min_length=1)
    max_length: int | None = Field(default=None, gt=1, description="tokens in a row; null: the model's context")
    overlong: Literal["truncate", "drop", "split"] = Field(
        default="truncate", description="what happens to what is longer; split, into rows of their own, is for text"
    )
    packing: bool = Field(default=False, description="several documents in a row, none of which sees another")
    learn: Literal["completion", "all"] = Field(
        default="completion", description="loss on completions and assistants' messages, or on prompts too"
    )
    chat_template: Path | None = Field(
        default=None, description="a Jinja file, instead of the base's; it is written into the checkpoint"
    )
    workers: int = Field(default=1, gt=0, description="processes that encode")
