"""Which parts of the base are expanded, and the loss that aligns the branches.

What cannot work or would have no effect is refused here where one section tells, and in `training.recipe.recipe` where
it takes more than one. The refusals name the recipe's fields; `cllm_model.config.Expansion` has the model's own.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from training.recipe.section import Section


class Expansion(Section):
    """Which layers of the base are copied, where the copies go, and how the branches are merged."""

    kind: Literal["concat", "stack", "hybrid"] = Field(
        default="concat", description="copies inside dual-branch layers, stacked behind their sources, or both in turn"
    )
    at: list[Annotated[int, Field(ge=0)]] | None = Field(
        default=None, min_length=1, description="the base's layers to copy, instead of `layers` evenly spaced ones"
    )
    layers: int | None = Field(default_factory=lambda given: 4 if given.get("at") is None else None, gt=0)
    method: str = Field(default="dlerp", description="of dual-branch layers; stacked ones are merged back by it")
    initial_factor: float | None = Field(
        default=0.0, allow_inf_nan=False, description="logit of the interpolation weight at the start; null: no weight"
    )
    freeze_factor: bool = Field(default=False, description="keep the initial factor from training")
    norm_alpha: float = Field(
        default=0.0, description="share of the input that the norms of the expanded branch let through; -1: learned"
    )

    @field_validator("method")
    @classmethod
    def _known(cls, method: str) -> str:
        from cllm_model.interpolators import MERGE_METHODS  # imports torch: not for everybody who reads a recipe

        if method not in MERGE_METHODS:
            raise ValueError(f"not one of {', '.join(MERGE_METHODS)}")
        return method

    @field_validator("norm_alpha")
    @classmethod
    def _share(cls, alpha: float) -> float:
        if not (0 <= alpha <= 1 or alpha == -1):
            raise ValueError("from 0 to 1, or -1 for a learned share in each norm")
        return alpha

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if (self.layers is None) == (self.at is None):
            raise ValueError("give one of `layers` (how many, evenly spaced) and `at` (a list), the other is null")
        if self.at is not None and self.at != sorted(set(self.at)):
            raise ValueError(f"`at` ({self.at}) is not an ascending list of layers")
        if self.kind == "hybrid" and (self.layers or len(self.at or [])) % 2:
            raise ValueError("kind 'hybrid' stacks and doubles layers in turn: an even number of them")
        if self.kind == "stack" and (self.freeze_factor or self.norm_alpha):
            field = "freeze_factor" if self.freeze_factor else "norm_alpha"
            raise ValueError(f"`{field}` has no effect with kind 'stack', which has no dual-branch layer")
        if self.initial_factor is None:
            if self.method != "lerp":
                raise ValueError(f"`initial_factor` null goes with method 'lerp' only, not {self.method!r}")
            if self.freeze_factor or self.norm_alpha == -1:
                field = "freeze_factor" if self.freeze_factor else "norm_alpha -1"
                raise ValueError(f"`{field}` needs an `initial_factor`; it is null")
        return self

    @property
    def has_branches(self) -> bool:
        """Whether there are dual-branch layers."""
        return self.kind != "stack"

    @property
    def chooses(self) -> bool:
        """Whether each token takes one branch or the other."""
        return self.has_branches and self.method == "moe"

    @property
    def trains_weight(self) -> bool:
        """Whether an interpolation weight changes in training."""
        if not self.has_branches or self.initial_factor is None:
            return False
        return not self.freeze_factor or self.method in ("dlerp", "dlerpin", "moe")

    @property
    def trains_interpolator(self) -> bool:
        """Whether any tensor of the interpolators changes in training."""
        return self.trains_weight or (self.has_branches and self.method in ("proj", "prog"))


class Divergence(Section):
    """The divergence loss; weight -1 takes each layer's own interpolation weight."""

    loss: Literal["cosine", "cosine_linear", "mse", "none"] = Field(
        default="mse", description="`cosine` is smooth-L1 of the cosine distance, as published; `cosine_linear` is not"
    )
    weight: float = Field(default=1.0, allow_inf_nan=False)
    positions: Literal["all", "prompt", "completion", "published"] = Field(
        default="all", description="tokens to average over: without padding, but `published` counts it as well"
    )

    @model_validator(mode="after")
    def _weight(self) -> Self:
        if self.weight < 0 and self.weight != -1:
            raise ValueError("`weight` is at least 0, or -1 for the layer's own interpolation weight")
        for name in ("weight", "positions"):
            value = getattr(self, name)
            if self.loss == "none" and value != type(self).model_fields[name].default:
                raise ValueError(f"`{name}` ({value}) has no effect with loss 'none'")
        return self

    @property
    def is_off(self) -> bool:
        """Whether the loss adds nothing."""
        return self.loss == "none" or self.weight == 0
