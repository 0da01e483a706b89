"""A whole recipe, and what its sections must agree on."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from training.recipe.base import Base
from training.recipe.baselines import Baselines
from training.recipe.data import Data, FileSkill, SkillName, Source
from training.recipe.evaluation import Evaluation, Example
from training.recipe.method import Divergence, Expansion
from training.recipe.rehearsal import Rehearsal
from training.recipe.section import Section
from training.recipe.train import ControlTrain


class Recipe(Section):
    """A whole run."""

    name: str = "run"
    seed: int = Field(default=0, ge=0)
    base: Base
    data: Data | None = Field(default=None, description="what is learned from, unless it is `new`")
    originals: list[SkillName | FileSkill] = Field(default=[], description="skills to be kept, scored before and after")
    new: SkillName | FileSkill | None = Field(default=None, description="skill to be learned, scored as well")
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
        self._check_skills()
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
        for name, baseline in self.baselines.all.items():
            if baseline.rehearse and self.rehearsal is None:
                raise ValueError(f"baselines.others.{name}.rehearse: there is no `rehearsal` to take part in")
            if baseline.rehearse and baseline.train.accumulation != self.train.accumulation:
                raise ValueError(
                    f"baselines.others.{name}.train.accumulation ({baseline.train.accumulation}) must be "
                    f"train.accumulation ({self.train.accumulation}), by which the rehearsed batches are split"
                )
        if self.train.freeze_interpolators and not self.expansion.trains_interpolator:
            raise ValueError("train.freeze_interpolators: no interpolator trains in this expansion: leave it out")
        self._check_losses()
        return self

    def _check_skills(self) -> None:
        """Refuse a recipe without something to learn, and what cannot be measured without skills."""
        if self.base.make and not self.originals:
            raise ValueError("originals: a base made here learns them, and there are none")
        learned_from_file = isinstance(self.new, FileSkill) and self.new.train is not None
        if self.data is None and not (isinstance(self.new, str) or learned_from_file):
            raise ValueError("nothing to learn: give `data`, or `new` (a demo skill, or a file skill with `train`)")
        if self.data is not None and learned_from_file:
            raise ValueError("new.train is short for `data`, and there is both")
        if (self.new is None) != (not self.originals):
            raise ValueError("`originals` and `new` are scored together: give both, or neither and `data`")
        if self.new is None and (self.baselines.all or self.evaluation.during):
            field = "baselines" if self.baselines.all else "evaluation.during"
            raise ValueError(f"`{field}` follows the score of `new`, and there is none")
        if self.base.sequential == "continue" and self.baselines.all:
            raise ValueError("`baselines` learn from a plain base, and base.sequential 'continue' starts from none")

    @property
    def sources(self) -> Data | None:
        """What is learned from, in files; None for a demo skill."""
        if isinstance(self.new, FileSkill) and self.new.train is not None:
            return Data(sources=[Source(path=self.new.train)])
        return self.data

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
        trains_weight = expansion.trains_weight and not self.train.freeze_interpolators
        if self.rehearsal and self.rehearsal.gate and not trains_weight:
            raise ValueError(
                "rehearsal.gate weighs the interpolation weights, and none of them trains in this expansion: "
                "it must be 0"
            )
        trains_interpolator = expansion.trains_interpolator and not self.train.freeze_interpolators
        if self.train.gate_learning_rate is not None and not trains_interpolator:
            raise ValueError(
                "train.gate_learning_rate is for interpolators, and none of them trains in this expansion: leave it out"
            )
