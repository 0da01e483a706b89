"""Optimisation on TRL's `SFTTrainer` of any model, and of what an expanded model adds to the cross entropy.

Loop, precision, accumulation and logging are TRL's and transformers'. Ours are the divergence loss, and on rehearsed
sequences the distance to the base model and the mean interpolation weight. Each is a mean over the tokens of a whole
update, as TRL's cross entropy is: counted over all micro-batches and processes, so that splitting an update changes
nothing. What trains is what the model says (`requires_grad`).
"""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel, PrinterCallback, Trainer, TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from trl import SFTTrainer

from cllm_model.config import Expansion
from cllm_model.divergence import OWN_WEIGHT, Branches, Divergence
from cllm_model.modeling import ControlLLMForCausalLM
from training import checkpoints, losses
from training.callbacks import progress
from training.recipe import Rehearsal

log = logging.getLogger(__name__)
_REHEARSED = "rehearsed"


class NotFinite(RuntimeError):
    """The loss or its gradient is not a number; nothing was updated with it."""


class RehearsalPool(Protocol):
    """Sequences that the base wrote, with its predictions."""

    def batch(self, update: int, part: int) -> dict[str, Tensor]:
        """One micro-batch of an update, the same whenever it is asked for.

        Returns:
            `input_ids` and `attention_mask`, (B, T), and what `training.rehearsal.pool_kl` needs of the base.
        """
        ...


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
    """Trains whatever requires a gradient in a model, plain or expanded.

    Args:
        model: The model; of an expanded one, the pretrained weights must be frozen.
        divergence: The divergence loss, or None for none of it; a model without branches has none.
        rehearsal: Weights of the rehearsal terms.
        pool: Rehearsed batches; None for none.
        gate_learning_rate: Learning rate of the interpolators, if it is their own.
        positions: Which tokens the divergence loss averages over, see `losses.divergence_tokens`.
        keep: How many checkpoints to keep.
        kwargs: `SFTTrainer`'s arguments.

    Raises:
        ValueError: The divergence loss has nothing to compare, or the model needs one with a weight of its own.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        divergence: Divergence | None = None,
        rehearsal: Rehearsal | None = None,
        pool: RehearsalPool | None = None,
        gate_learning_rate: float | None = None,
        positions: str = "all",
        keep: int = 2,
        **kwargs: Any,
    ) -> None:
        assert any(parameter.requires_grad for parameter in model.parameters()), "nothing trains"
        self.dual = model if isinstance(model, ControlLLMForCausalLM) else None
        if self.dual is not None:
            _check_divergence(divergence, self.dual.config.dual)
            self.dual.model.keep_branches = True
        super().__init__(model=model, **kwargs)
        self.divergence = divergence
        self.rehearsal = rehearsal
        self.pool = pool
        self.gate_learning_rate = gate_learning_rate
        self.positions = positions
        self.keep = keep
        self._counts: dict[str, Tensor] = {}
        self.remove_callback(PrinterCallback)
        self.add_callback(progress())

    def fit(self, resume: Path | None = None) -> None:
        """Train, from a checkpoint on if one is given; behind that of the last update nothing is left to train."""
        if resume is None:
            self.train()
            return
        state = TrainerState.load_from_json(str(resume / TRAINER_STATE_NAME))
        if not state.stateful_callbacks["TrainerControl"]["args"]["should_training_stop"]:
            self.train(resume_from_checkpoint=str(resume))
            return
        assert self.model is not None  # neither sharded nor wrapped, which transformers' own loading counts on
        self._issue_warnings_after_load(self.model.load_state_dict(checkpoints.load_tensors(resume), strict=False))
        self.state = state

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | int | None]:
        """The micro-batches of one update, each with its rehearsed one. Counts the tokens that our terms average."""
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        processes, rank = self.accelerator.num_processes, self.accelerator.process_index
        mine = torch.zeros(2, device=device)
        for number, batch in enumerate(batches):
            mine[0] += losses.divergence_tokens(batch, self.positions).sum()
            if self.pool is not None:
                batch[_REHEARSED] = self.pool.batch(self.state.global_step, number * processes + rank)
                mine[1] += losses.tokens_of(batch[_REHEARSED]).sum()
        new, rehearsed = self.accelerator.reduce(mine, "sum").clamp(min=1)
        self._counts = {"new": new, _REHEARSED: rehearsed}
        return batches, items

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """Cross entropy, plus the terms of an expanded model and of rehearsal.

        TRL's forward goes past the causal model's own (its head is fused), so the branches are read from the backbone.
        """
        # Asking TRL for outputs would run a second forward without gradients over the branches that are needed here.
        assert not return_outputs, "set prediction_loss_only"
        rehearsed = inputs.pop(_REHEARSED, None)
        loss: Tensor = super().compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)
        if self.dual is not None:
            loss = loss + self._on_new(self.dual, inputs)
        if rehearsed is not None:
            loss = loss + self._on_rehearsed(model, rehearsed)
        return loss

    def _on_new(self, dual: ControlLLMForCausalLM, batch: dict[str, Any]) -> Tensor:
        """The divergence loss of the forward pass that was just made."""
        branches = self._take_branches(dual)
        tokens = losses.divergence_tokens(batch, self.positions)
        self._record("new", branches, losses.tokens_of(batch))
        if self.divergence is None:
            return torch.zeros((), device=tokens.device)
        return self._mean("divergence", losses.mean_divergence(self.divergence, branches), tokens, "new")

    def _on_rehearsed(self, model: torch.nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """The rehearsal terms of one rehearsed micro-batch."""
        assert self.rehearsal is not None
        tokens = losses.tokens_of(batch)
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "trunk_states") if name in batch}
        logits = model(**inputs, use_cache=False).logits  # (B, T, V)
        kl = self._mean("kl", losses.pool_kl(batch, logits), tokens, _REHEARSED)
        branches = self._take_branches(self.dual) if self.dual is not None else {}
        if not branches:
            return self.rehearsal.kl * kl
        self._record(_REHEARSED, branches, tokens)
        gate = self._mean("gate", losses.mean_gate(branches), tokens, _REHEARSED)
        return self.rehearsal.kl * kl + self.rehearsal.gate * gate

    def _take_branches(self, dual: ControlLLMForCausalLM) -> dict[int, Branches]:
        # Left in the model they would keep the whole graph alive until the next forward.
        branches, dual.model.branches = dual.model.branches, {}
        return branches

    def _mean(self, name: str, values: Tensor, tokens: Tensor, count: str) -> Tensor:
        """This micro-batch's part of the mean over an update's tokens, (B, T) -> (); in evaluation its own mean."""
        total = losses.masked_sum(values, tokens)
        if not self._training:
            mean = total / tokens.sum().clamp(min=1)
            self._note(name, mean.item())
            return mean
        # DDP and FSDP average gradients over processes, which undoes the factor.
        part = total / self._counts[count] * self.accelerator.num_processes
        # Notes are averaged over micro-batches, whose parts add up.
        parts = self.accelerator.gather(part.detach()).mean() * self.current_gradient_accumulation_steps
        self._note(name, parts.item())
        return part

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
            for layer, values in losses.mixing(branches, mask).items():
                for name, value in values.items():
                    self._note(f"{name}_{which}/{layer}", value)

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """One micro-batch, forward and backward.

        Raises:
            NotFinite: The loss is not a number.
        """
        loss: Tensor = super().training_step(*args, **kwargs)
        if not torch.isfinite(loss):
            raise NotFinite(f"the loss is {loss.item()} {self._where()}")
        return loss

    def _clip_grad_norm(self, model: torch.nn.Module) -> Tensor | float | None:
        norm: Tensor | float | None = super()._clip_grad_norm(model)
        if norm is not None and not torch.isfinite(torch.as_tensor(norm)):
            raise NotFinite(f"the gradient's norm is {float(norm)} {self._where()}")
        return norm

    def _where(self) -> str:
        """Which update it was, and which rows of the data it learned from."""
        data: Any = self.train_dataset
        rows = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.accelerator.num_processes
        update = self.state.global_step
        first, last = update * rows % len(data), (update * rows + rows - 1) % len(data)
        places = {data[i]["where"] for i in range(first, last + 1)} if "where" in data.column_names else set()
        told = f" ({', '.join(sorted(places))})" if places else ""
        return (
            f"in update {update + 1} of {self.state.max_steps}, which learns from rows {first} to {last} of the data "
            f"in the order of training{told}; the weights are those of the update before"
        )

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW over what is trainable; the interpolators may have their own learning rate."""
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
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

    def _init_training_state(self, *args: Any, **kwargs: Any) -> tuple[int, int]:
        done: tuple[int, int] = super()._init_training_state(*args, **kwargs)
        if self.args.gradient_checkpointing:
            # What reentrant checkpoints need, which ours are not, sends gradients through the frozen layers below.
            model: Any = self.model
            model.disable_input_require_grads()
        # TRL counts from 0 again when it resumes. Checkpoints are written where the log ends.
        seen = (entry["num_tokens"] for entry in reversed(self.state.log_history) if "num_tokens" in entry)
        self._total_train_tokens = int(next(seen, 0))
        return done

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Refuse a checkpoint that is not of what trains here; that it lacks the rest is as it should be."""
        assert self.model is not None
        trained = {name for name, parameter in self.model.named_parameters() if parameter.requires_grad}
        if wrong := sorted({*load_result.unexpected_keys, *trained.intersection(load_result.missing_keys)}):
            raise ValueError(f"the checkpoint is not of this training: {wrong[0]} is not in both")

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Write a checkpoint to resume from beside its place, then move it there whole; old ones are removed after."""
        assert self.args.output_dir is not None
        directory = Path(self.args.output_dir)
        with checkpoints.write_beside(directory, self.accelerator) as beside:
            self.args.output_dir = str(beside)
            try:
                Trainer._save_checkpoint(self, model, trial)  # TRL's would write a model card as well
            finally:
                self.args.output_dir = str(directory)
        if self.args.should_save:
            checkpoints.remove_old(directory, self.keep)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        """Write what trains: the rest is the base's, which a resumed run has."""
        assert output_dir is not None and self.model is not None
        trained = {name for name, parameter in self.model.named_parameters() if parameter.requires_grad}
        state = self.model.state_dict() if state_dict is None else state_dict
        checkpoints.save_tensors({name: state[name] for name in sorted(trained)}, Path(output_dir))
