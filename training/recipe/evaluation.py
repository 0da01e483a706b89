"""What is measured, and what is shown of it."""

from typing import Literal

from pydantic import Field, field_validator

from training.recipe.data import SkillName
from training.recipe.section import Section


class During(Section):
    """Checks while the model is trained, on prompts of the validation split; the best check's weights are kept."""

    every: int = Field(default=100, gt=0, description="steps between two checks")
    prompts: int = Field(default=50, gt=0, description="per skill")
    stop_below: float | None = Field(
        default=None, gt=0, le=1, description="end the training at the first check with less retention"
    )


class Evaluation(Section):
    """Exact match of greedy answers, each skill alone, and what follows from it."""

    split: Literal["validation", "test"] = "test"
    prompts: int = Field(default=200, gt=0, description="per skill")
    batch_size: int = Field(default=64, gt=0)
    max_new_tokens: int = Field(default=128, gt=0)
    scales: list[float] = Field(
        default=[0, 0.25, 0.5, 0.75, 1], description="of the dial, in ascending order; 0 and 1 are among them"
    )
    suites: list[str] = Field(
        default=[], description="what `cllm eval` takes: files of questions or texts, or lm-eval:TASK; at every scale"
    )
    window: int = Field(default=2048, gt=1, description="most tokens of a text that perplexity looks at together")
    retention_floor: float = Field(
        default=0.95, ge=0, le=1, description="share of the original skills that the best scale and check must keep"
    )
    during: During | None = None
    vllm_parity: bool = Field(
        default=True, description="compare the finished checkpoint in vLLM, where it is installed, too"
    )

    @field_validator("scales")
    @classmethod
    def _dial(cls, scales: list[float]) -> list[float]:
        from cllm_model.scale import check_scale

        checked = [check_scale(scale, "scales") for scale in scales]
        if checked != sorted(set(checked)):
            raise ValueError("each scale once, in ascending order")
        if not {0, 1} <= set(checked):
            raise ValueError("0, the base, and 1, the model as trained, must be among them")
        return checked


class Example(Section):
    """A request shown in the report with everybody's answer."""

    skill: SkillName
    content: list[str] = Field(min_length=1)
    wording: int = Field(default=0, ge=0)
