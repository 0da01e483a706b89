"""How the parameters are optimised, on how many devices, and what is kept of it on the way."""

from typing import Literal, Self

from pydantic import Field, model_validator

from training.recipe.section import Section


class Train(Section):
    """One optimisation with AdamW.

    An update is made of `batch_size` examples, however they are spread: over `accumulation` micro-batches one after
    the other, and over the processes that torchrun starts. All losses are means over the update's tokens, so its
    gradient is the same in each case.
    """

    steps: int = Field(default=1000, gt=0, description="updates")
    batch_size: int = Field(default=32, gt=0, description="examples per update, of all processes")
    accumulation: int = Field(
        default=1, gt=0, description="micro-batches that a process splits its share of an update into, short ones first"
    )
    learning_rate: float = Field(default=1e-3, gt=0)
    schedule: Literal["cosine", "linear", "constant"] = Field(default="cosine", description="after the warm-up")
    final_learning_rate: float = Field(default=0.0, ge=0, description="where schedule `cosine` ends")
    warmup_steps: int = Field(default=50, ge=0)
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    log_every: int = Field(default=25, gt=0)
    precision: Literal["fp32", "bf16"] = Field(
        default="fp32", description="bf16: computed in bf16, what trains is kept in fp32"
    )
    attention: Literal["sdpa", "flash_attention_2", "eager"] = Field(
        default="sdpa", description="for long packed rows flash_attention_2, which is a package of its own"
    )
    checkpointing: bool = Field(default=False, description="recompute activations instead of keeping them")
    compile: bool = Field(default=False, description="compile each decoder layer with torch.compile")
    sharding: Literal["none", "fsdp", "zero2"] = Field(
        default="none",
        description="none: each process holds a whole model (DDP); fsdp: a share of it (FSDP2); zero2: a whole model, "
        "and a share of gradients and optimizer state (DeepSpeed)",
    )

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.batch_size % self.accumulation:
            raise ValueError(f"`accumulation` must divide `batch_size` ({self.batch_size})")
        if self.final_learning_rate and self.schedule != "cosine":
            raise ValueError(f"`final_learning_rate` has no effect with schedule {self.schedule!r}: it is for 'cosine'")
        if self.attention == "flash_attention_2" and self.precision == "fp32":
            raise ValueError("`attention` 'flash_attention_2' computes in bf16 only, and `precision` is 'fp32'")
        if self.sharding == "zero2" and self.precision == "bf16":
            # DeepSpeed would keep the model itself in bf16.
            raise ValueError("`sharding` 'zero2' trains in fp32 only; `precision` 'bf16' goes with 'fsdp' and 'none'")
        return self


class ControlTrain(Train):
    """Training of the expanded layers and interpolators."""

    gate_learning_rate: float | None = Field(
        default=None, gt=0, description="for the interpolators; default: learning_rate"
    )
    freeze_interpolators: bool = Field(default=False, description="train the expanded layers only")
    trunk_cache: Literal["auto", "always", "never"] = Field(
        default="auto",
        description="keep on disk what the frozen layers below the expansion make of a text, for the next time that "
        "it is trained on or rehearsed; auto: where that pays",
    )
    save_every: int | None = Field(
        default=None, gt=0, description="updates between checkpoints to resume from; null: none are written"
    )
    keep: int = Field(default=2, gt=0, description="checkpoints to keep, the newest ones")

    @model_validator(mode="after")
    def _saves(self) -> Self:
        # A logged loss is a mean over an interval: one cut in two by a stop would not be that of an unbroken run.
        if self.save_every is not None and self.save_every % self.log_every:
            raise ValueError(f"`save_every` ({self.save_every}) must be a multiple of `log_every` ({self.log_every})")
        if self.save_every is None and self.keep != type(self).model_fields["keep"].default:
            raise ValueError(f"`keep` ({self.keep}) has no effect without `save_every`")
        return self


class BaselineTrain(Train):
    """A baseline stops at the first check where it is as good at the new skill as the controlled model."""

    check_every: int = Field(default=25, gt=0)
    check_prompts: int = Field(default=100, gt=0)
