"""The pre-trained model that a run starts from."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from training.recipe.data import SkillName
from training.recipe.section import Section
from training.recipe.train import Train


class Stage(Section):
    """One stage of a base's training, with an optimizer and a schedule of its own."""

    weights: dict[SkillName, float] = Field(default={}, description="how often a skill is drawn, 1 where not named")
    prompt_share: float = Field(
        default=0.1, ge=0, le=1, description="share of the examples whose request is learned too"
    )
    train: Train = Train()


class Made(Section):
    """A base model made here: a small Llama with a character tokenizer, trained on the original skills."""

    hidden_size: int = Field(default=96, gt=0)
    intermediate_size: int = Field(default=256, gt=0)
    initializer_range: float = Field(default=0.06, gt=0)
    layers: int = Field(default=8, gt=0)
    heads: int = Field(default=3, gt=0)
    context: int = Field(default=256, gt=0)
    stages: list[Stage] = Field(default=[Stage()], min_length=1)


class Base(Section):
    """The pre-trained model: a checkpoint directory, or one made here.

    With both, the checkpoint is taken for what `make` gave before (its last stages are slow), and the report says so.
    """

    path: Path | None = None
    make: Made | None = None
    sequential: Literal["continue", "merge"] | None = Field(
        default=None,
        description="of a controlled checkpoint: train its expansion further, or merge its branches and expand anew",
    )

    @model_validator(mode="after")
    def _given(self) -> Self:
        if self.path is None and self.make is None:
            raise ValueError("give `path` (a checkpoint directory) or `make` (a model to be made here)")
        if self.sequential is not None and (self.path is None or self.make is not None):
            raise ValueError("`sequential` is of a controlled checkpoint: give its `path`, and no `make`")
        return self
