"""Optimisation on TRL's `SFTTrainer`: the plain one, and the one that adds what an expanded model needs.

Loop, precision, accumulation and logging are TRL's and transformers'. Ours are the terms added to the cross entropy:
the divergence loss, and on rehearsed sequences the distance to the base model and the mean interpolation weight.
"""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import SFTConfig, SFTTrainer

from cllm_model.config import Expansion
from cllm_model.divergence import OWN_WEIGHT, Branches, Divergence
from cllm_model.modeling import ControlLLMForCausalLM
from training.losses import masked_mean, mixing, token_kl
from training.recipe import Rehearsal, Train

log = logging.getLogger(__name__)
_LOGGED = ("loss", "divergence", "kl", "gate", "mean_token_accuracy")


def sft_config(train: Train, seed: int, directory: Path) -> SFTConfig:
    """TRL's configuration of one optimisation; what TRL would switch on by itself is switched off."""
    return SFTConfig(
        output_dir=str(directory),
        max_steps=train.steps,
        per_device_train_batch_size=train.batch_size // train.accumulation,
        gradient_accumulation_steps=train.accumulation,
        learning_rate=train.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=train.warmup_steps,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        logging_steps=train.log_every,
        # `data.dataset` has put the examples into the order in which they are wanted.
        train_sampling_strategy="sequential",
        dataloader_pin_memory=torch.cuda.is_available(),
        seed=seed,
        max_length=None,
        bf16=False,
        gradient_checkpointing=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


class LogSteps(TrainerCallback):
    """Sends the loss to the logger, where transformers would print it."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Log the terms of the loss."""
        shown = [f"{name} {value:.4f}" for name, value in (logs or {}).items() if name in _LOGGED]
        if shown:
            log.info("step %s of %s: %s", state.global_step, state.max_steps, ", ".join(shown))


def log_steps(trainer: SFTTrainer) -> None:
    """Let `trainer` log instead of print."""
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(LogSteps)


def _check_divergence(divergence: Divergence | None, dual: Expansion) -> None:
    if divergence is not None and not dual.expanded_layers:
        raise ValueError("divergence: a stacked expansion has no branches to compare; it must be None")
    if dual.merge_method == "moe" and dual.expanded_layers:
        if divergence is None or divergence.weight != OWN_WEIGHT:
            raise ValueError(
                f"divergence: {divergence} gives the gate of merge method 'moe' no gradient, and its choice passes "
                f"none; only a weight of {OWN_WEIGHT:g} does"
            )


class ControlTrainer(SFTTrainer):
    """Trains what an expansion added: expanded and stacked layers, and interpolators; everything else is frozen.

    Args:
        model: The expanded model.
        divergence: The divergence loss, or None for none of it; a model without branches has none.
        rehearsal: Weights of the rehearsal terms.
        pool: Rehearsed batches (`input_ids`, `attention_mask`), drawn one for each micro-batch; None for none.
        gate_learning_rate: Learning rate of the interpolators, if it is their own.
        kwargs: `SFTTrainer`'s arguments.

    Raises:
        ValueError: The divergence loss has nothing to compare, or the model needs one with a weight of its own.
    """

    def __init__(
        self,
        model: ControlLLMForCausalLM,
        divergence: Divergence | None,
        rehearsal: Rehearsal | None,
        pool: Iterator[dict[str, Tensor]] | None,
        gate_learning_rate: float | None = None,
        **kwargs: Any,
    ) -> None:
        _check_divergence(divergence, model.config.dual)
        model.freeze_pretrained()
        model.model.keep_branches = True
        super().__init__(model=model, **kwargs)
        self.divergence = divergence
        self.rehearsal = rehearsal
        self.pool = pool
        self.gate_learning_rate = gate_learning_rate
        log_steps(self)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """Cross entropy, plus the terms of an expanded model.

        TRL's forward goes past the causal model's own (its head is fused), so the branches are read from the backbone.
        """
        # Asking TRL for outputs would run a second forward without gradients over the branches that are needed here.
        assert not return_outputs, "set prediction_loss_only"
        loss = super().compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)
        extra = self._terms(model, inputs["attention_mask"])
        # Means over a micro-batch: the cross entropy is already divided for accumulation, these are not (as in TRL's
        # own auxiliary loss). DDP averages them over ranks.
        steps = self.current_gradient_accumulation_steps if num_items_in_batch is not None else 1
        return loss + extra / steps

    def _terms(self, model: torch.nn.Module, mask: Tensor) -> Tensor:
        unwrapped: ControlLLMForCausalLM = self.accelerator.unwrap_model(model)
        backbone = unwrapped.model
        self._record("new", backbone.branches, mask)
        total = torch.zeros((), device=mask.device)
        if self.divergence is not None:
            layers = [self.divergence(b, mask) for b in backbone.branches.values()]
            divergence = torch.stack(layers).mean()
            self._note("divergence", divergence.item())
            total = total + divergence
        if self.pool is not None and model.training:
            assert self.rehearsal is not None
            batch = {name: tensor.to(mask.device) for name, tensor in next(self.pool).items()}
            with torch.no_grad():
                base = model(**batch, use_cache=False, control_scale=0.0).logits  # (B, T, V)
            dual = model(**batch, use_cache=False).logits
            self._record("rehearsed", backbone.branches, batch["attention_mask"])
            kl = masked_mean(token_kl(base, dual), batch["attention_mask"])
            self._note("kl", kl.item())
            total = total + self.rehearsal.kl * kl
            if backbone.branches:
                gates = [b.weight.expand(*dual.shape[:2], 1).squeeze(-1) for b in backbone.branches.values()]
                gate = masked_mean(torch.stack(gates).mean(dim=0), batch["attention_mask"])
                self._note("gate", gate.item())
                total = total + self.rehearsal.gate * gate
        return total

    def _note(self, name: str, value: float) -> None:
        # SFTTrainer averages what is put here over a logging interval and adds it to its log.
        self._metrics["train" if self._training else "eval"][name].append(value)

    @property
    def _training(self) -> bool:
        assert self.model is not None
        return bool(self.model.training)

    def _record(self, which: str, branches: Mapping[int, Branches], mask: Tensor) -> None:
        """Interpolation weight and alignment of each layer, once per logging interval: they cost a little."""
        if self._training and self.state.global_step % self.args.logging_steps == 0:
            for layer, values in mixing(branches, mask).items():
                for name, value in values.items():
                    self._note(f"{name}_{which}/{layer}", value)

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW over what is trainable; the interpolators may have their own learning rate."""
        optimizer = super().create_optimizer(model)
        if self.gate_learning_rate is not None:
            chosen = self.model if model is None else model
            assert chosen is not None
            gates = {id(p) for name, p in chosen.named_parameters() if ".interpolator." in name}
            for group in list(optimizer.param_groups):
                own = [p for p in group["params"] if id(p) in gates]
                if own:
                    group["params"] = [p for p in group["params"] if id(p) not in gates]
                    optimizer.add_param_group({**group, "params": own, "lr": self.gate_learning_rate})
        return optimizer
