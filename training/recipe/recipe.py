"""A whole recipe, and what its sections must agree on."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from training.recipe.base import Base
from training.recipe.data import FileSkill, SkillName
from training.recipe.evaluation import Baselines, Evaluation, Example
from training.recipe.method import Divergence, Expansion
from training.recipe.rehearsal import Rehearsal
from training.recipe.section import Section
from training.recipe.train import ControlTrain


class Recipe(Section):
    """A whole run."""

    name: str = "run"
    seed: int = 0
    base: Base
    originals: list[SkillName | FileSkill] = Field(min_length=1)
    new: SkillName | FileSkill
    expansion: Expansion = Expansion()
    divergence: Divergence = Divergence()
    rehearsal: Rehearsal | None = None
    train: ControlTrain = ControlTrain()
    evaluation: Evaluation = Evaluation()
    baselines: Baselines = Baselines()
    examples: list[Example] = []
    output: Annotated[Path, Field(description="directory of the run")] = Path("out")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.base.make and any(isinstance(skill, FileSkill) for skill in self.originals):
            raise ValueError("a base made here learns named skills only: `originals` must not hold files")
        for number, stage in enumerate(self.base.make.stages if self.base.make else []):
            if unknown := set(stage.weights) - set(self.originals):
                raise ValueError(
                    f"base.make.stages.{number}.weights names {sorted(unknown)}, which `originals` does not hold"
                )
        if self.new in self.originals:
            raise ValueError(f"the new skill {self.new!r} is among `originals`")
        if self.rehearsal and self.rehearsal.batch_size % self.train.accumulation:
            raise ValueError(f"train.accumulation ({self.train.accumulation}) must divide rehearsal.batch_size")
        if self.rehearsal and self.rehearsal.batch_size > self.rehearsal.sequences:
            raise ValueError("rehearsal.batch_size is larger than rehearsal.sequences")
        if isinstance(self.new, FileSkill) and self.new.train is None:
            raise ValueError("new.train: name a JSONL file")
        self._check_losses()
        return self

    def _check_losses(self) -> None:
        """Refuse terms that would have no effect on the expansion, and an expansion that no term would train."""
        expansion, divergence = self.expansion, self.divergence
        if not expansion.has_branches and divergence.loss != "none":
            raise ValueError(
                f"divergence.loss ({divergence.loss!r}) compares branches, and expansion.kind 'stack' has none: "
                "it must be 'none'"
            )
        if expansion.chooses and (divergence.is_off or divergence.weight != -1):
            raise ValueError(
                "expansion.method 'moe' is a choice, through which no gradient passes: its gate learns from the "
                "divergence loss of divergence.weight -1 only"
            )
        if expansion.has_branches and expansion.method == "proj" and divergence.is_off:
            raise ValueError("expansion.method 'proj' learns its map from the divergence loss, and there is none of it")
        if self.rehearsal and self.rehearsal.gate and not expansion.trains_weight:
            raise ValueError(
                "rehearsal.gate weighs the interpolation weights, and none of them trains in this expansion: "
                "it must be 0"
            )
        if self.train.gate_learning_rate is not None and not expansion.trains_interpolator:
            raise ValueError(
                "train.gate_learning_rate is for interpolators, and none of them trains in this expansion: leave it out"
            )
