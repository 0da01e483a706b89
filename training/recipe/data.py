"""What is learned from, and what the model is held to."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from training.recipe.section import Section

SkillName = Literal["reverse", "add", "compare", "capitals", "letters", "count", "help", "smalltalk", "tavi"]


class FileSkill(Section):
    """A skill read from JSONL files of chat messages; the last message is the answer."""

    name: str = Field(pattern=r"^[a-z0-9_-]+$")
    label: str = ""
    train: Path | None = None
    validation: Path | None = None
    test: Path
