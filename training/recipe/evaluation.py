"""What is measured, and what it is compared with."""

from typing import Literal

from pydantic import Field

from training.recipe.data import SkillName
from training.recipe.section import Section
from training.recipe.train import BaselineTrain


class Evaluation(Section):
    """Exact match of greedy answers, each skill alone."""

    split: Literal["validation", "test"] = "test"
    prompts: int = Field(default=200, gt=0, description="per skill")
    batch_size: int = Field(default=64, gt=0)
    max_new_tokens: int = Field(default=128, gt=0)


class Baselines(Section):
    """Other ways to learn the new skill from the same base and data, for comparison."""

    full_fine_tuning: BaselineTrain | None = None


class Example(Section):
    """A request shown in the report with everybody's answer."""

    skill: SkillName
    content: list[str] = Field(min_length=1)
    wording: int = Field(default=0, ge=0)
