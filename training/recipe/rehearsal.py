"""How much of the base's own writing is rehearsed, and how strictly."""

from pydantic import Field

from training.recipe.section import Section


class Rehearsal(Section):
    """Self-rehearsal: the frozen base writes requests and answers, and the dual model is held to its predictions."""

    sequences: int = Field(default=2048, gt=0)
    batch_size: int = Field(default=16, gt=0, description="sequences per update; a multiple of train.accumulation")
    temperature: float = Field(default=1.0, gt=0)
    max_tokens: int = Field(default=160, gt=0)
    kl: float = Field(default=1.0, ge=0, description="weight of KL(base || dual)")
    gate: float = Field(default=1.0, ge=0, description="weight of the mean interpolation weight")
