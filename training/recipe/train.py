"""How the parameters are optimised."""

from typing import Self

from pydantic import Field, model_validator

from training.recipe.section import Section


class Train(Section):
    """One optimisation: AdamW with warm-up and a cosine schedule, loss on the answers."""

    steps: int = Field(default=1000, gt=0)
    batch_size: int = Field(default=32, gt=0, description="examples per update")
    accumulation: int = Field(
        default=1, gt=0, description="micro-batches that an update is split into, short examples first"
    )
    learning_rate: float = Field(default=1e-3, gt=0)
    warmup_steps: int = Field(default=50, ge=0)
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    log_every: int = Field(default=25, gt=0)

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.batch_size % self.accumulation:
            raise ValueError(f"`accumulation` must divide `batch_size` ({self.batch_size})")
        return self


class ControlTrain(Train):
    """Training of the expanded layers and interpolators."""

    gate_learning_rate: float | None = Field(
        default=None, gt=0, description="for the interpolators; default: learning_rate"
    )


class BaselineTrain(Train):
    """A baseline stops at the first check where it is as good at the new skill as the controlled model."""

    check_every: int = Field(default=25, gt=0)
    check_prompts: int = Field(default=100, gt=0)
