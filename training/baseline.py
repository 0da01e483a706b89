"""The baseline: plain full fine-tuning of the same base on the same new data, for the same new-skill score."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from trl import SFTTrainer

from training.recipe import BaselineTrain
from training.trainer import log_steps, sft_config


class StopAtScore(TrainerCallback):
    """Ends a training at the first check that reaches a score, so that it forgets no more than it must."""

    def __init__(self, score: Callable[[], float], target: float, every: int) -> None:
        self.score = score
        self.target = target
        self.every = every
        self.checks: list[dict[str, float]] = []

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Check the score every so many steps."""
        if state.global_step % self.every == 0:
            self.checks.append({"step": state.global_step, "score": self.score()})
            control.should_training_stop = self.checks[-1]["score"] >= self.target
        return control


def full_fine_tuning(
    base: Path,
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset,
    settings: BaselineTrain,
    score: Callable[[PreTrainedModel], float],
    target: float,
    seed: int,
    scratch: Path,
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Train every parameter of the base until `score` (on validation prompts) reaches `target`.

    Returns:
        The model, and what is to be said about it in the report.
    """
    model = AutoModelForCausalLM.from_pretrained(base)
    stop = StopAtScore(lambda: score(model), target, settings.check_every)
    trainer = SFTTrainer(
        model=model,
        args=sft_config(settings, seed, scratch),
        train_dataset=rows,
        processing_class=tokenizer,
        callbacks=[stop],
    )
    log_steps(trainer)
    trainer.train()
    facts = {
        "steps": trainer.state.global_step,
        "target": target,
        "reached": bool(stop.checks) and stop.checks[-1]["score"] >= target,
        "checks": stop.checks,
        "trainable_parameters": model.num_parameters(),
    }
    return model, facts
