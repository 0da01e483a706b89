"""Other ways to learn the same from the same base, for comparison."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from training.recipe.section import Section
from training.recipe.train import BaselineTrain


class Baseline(Section):
    """One way to learn the new skill from the same base and data.

    It stops at the first check that finds it as good at the new skill as the controlled model, both on validation
    prompts: from then on it could only forget more.
    """

    method: Literal["full", "partial", "lora", "hft", "stack"]
    train: BaselineTrain = BaselineTrain()
    learning_rates: list[Annotated[float, Field(gt=0)]] | None = Field(
        default=None, min_length=1, description="tried in turn, instead of train.learning_rate; validation chooses"
    )
    at: list[Annotated[int, Field(ge=0)]] | None = Field(
        default=None, min_length=1, description="layers of `partial` and `stack`; default: those of the expansion"
    )
    rank: int = Field(default=8, gt=0, description="of `lora`; its scale is 2")
    rehearse: bool = Field(default=False, description="with the recipe's self-rehearsal")
    replay: float = Field(default=0.0, ge=0, lt=1, description="share of stored examples of the originals in the data")
    average: Literal["wise_ft", "lines"] | None = Field(
        default=None, description="move the trained weights back towards the base; validation chooses how far"
    )
    shares: list[Annotated[float, Field(ge=0, le=1)]] = Field(
        default=[0.25, 0.5, 0.7, 0.8, 0.9, 1.0],
        min_length=1,
        description="tried by `average`: of what was learned, to be kept (`lines`: in the lowest layer)",
    )

    @model_validator(mode="after")
    def _effective(self) -> Self:
        given = {"at": ("partial", "stack"), "rank": ("lora",)}
        fields = type(self).model_fields
        for name, methods in given.items():
            if self.method not in methods and getattr(self, name) != fields[name].default:
                raise ValueError(
                    f"`{name}` has no effect with method {self.method!r}: it is for {' and '.join(methods)}"
                )
        if self.average is None and self.shares != fields["shares"].default:
            raise ValueError("`shares` has no effect without `average`")
        if self.average is not None and self.method == "stack":
            raise ValueError("`average` needs weights of the base's form, and method 'stack' adds layers")
        if self.method == "lora" and self.train.sharding != "none":
            raise ValueError(
                f"method 'lora' has little to share: `train.sharding` {self.train.sharding!r} must be 'none'"
            )
        if self.learning_rates is not None and "learning_rate" in self.train.model_fields_set:
            raise ValueError("give one of `learning_rates` and `train.learning_rate`")
        return self


class Baselines(Section):
    """What the controlled model is compared with."""

    full_fine_tuning: BaselineTrain | None = Field(default=None, description="short for method `full`")
    others: dict[Annotated[str, Field(pattern=r"^[a-z0-9_-]+$")], Baseline] = Field(
        default={}, description="name in the report -> baseline"
    )

    @model_validator(mode="after")
    def _names(self) -> Self:
        if taken := {"base", "control", "full_fine_tuning"} & set(self.others):
            raise ValueError(f"`others` names {sorted(taken)}, which the report has already")
        return self

    @property
    def all(self) -> dict[str, Baseline]:
        """Every baseline by its name in the report."""
        if self.full_fine_tuning is None:
            return self.others
        return {"full_fine_tuning": Baseline(method="full", train=self.full_fine_tuning), **self.others}
