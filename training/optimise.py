"""One optimisation from start to end, for every model and method: types, compilation, trainer, resuming, clean-up."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback, TrainerState

from cllm_model.divergence import Divergence
from cllm_model.modeling import ControlLLMForCausalLM
from training import checkpoints, distributed, precision, processes
from training.arguments import sft_config
from training.recipe import ControlTrain, Recipe, Rehearsal, Train
from training.trainer import ControlTrainer, RehearsalPool
from training.trunk_cache import TrunkCache, WithStates


@dataclass(frozen=True)
class Terms:
    """What is added to the cross entropy.

    Attributes:
        divergence: The divergence loss; None for a model without branches, or for none of it.
        positions: Tokens that it averages over.
        rehearsal: Weights of the rehearsal terms.
        pool: Rehearsed batches.
    """

    divergence: Divergence | None = None
    positions: str = "all"
    rehearsal: Rehearsal | None = None
    pool: RehearsalPool | None = None

    @classmethod
    def of(cls, recipe: Recipe, pool: RehearsalPool | None) -> "Terms":
        """The terms of a recipe."""
        chosen = recipe.divergence
        loss = None if chosen.loss == "none" else Divergence(chosen.loss, chosen.weight)
        return cls(loss, chosen.positions, recipe.rehearsal, pool)


@distributed.environment_kept()
def optimise(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset,
    train: Train,
    seed: int,
    directory: Path,
    terms: Terms = Terms(),  # noqa: B008 - frozen
    callbacks: Sequence[TrainerCallback] = (),
    trunk: TrunkCache | None = None,
) -> tuple[PreTrainedModel, TrainerState]:
    """Train what requires a gradient in a model; its parameters end in the types that they had.

    Args:
        model: The model; trained in place.
        tokenizer: Its tokenizer.
        rows: `input_ids` and `labels` in training order, packed ones with `seq_lengths`.
        train: The recipe's section.
        seed: Of what is random in training.
        directory: Of checkpoints; the newest whole one in it is where training goes on.
        terms: What is added to the loss.
        callbacks: Of transformers.
        trunk: What the frozen layers make of the rows (`data`), of rehearsed sequences (`rehearsal`), or of both.

    Returns:
        The model, another object if it was sharded, and what the trainer knows of the training.

    Raises:
        NotFinite: The loss or its gradient is not a number.
        ValueError: The section does not fit the model, the machine or the checkpoints.
    """
    types = {name: tensor.dtype for name, tensor in model.named_parameters()}
    if train.precision == "fp32":
        model.float()
    else:
        precision.trained_in_fp32(model)
    attention = model.config._attn_implementation
    model.set_attn_implementation(train.attention)
    states = {} if trunk is None else trunk.open(model, train.precision)
    pool = terms.pool
    if pool is not None and "rehearsal" in states:
        pool = WithStates(pool.batch, states["rehearsal"])
    if train.compile:
        precision.compile_layers(model)
    control = train if isinstance(train, ControlTrain) else ControlTrain()
    args = sft_config(train, seed, directory, control.save_every, packed="seq_lengths" in rows.column_names)
    distributed.tell_plan(args, model, train)
    trainer = ControlTrainer(
        model=model,
        divergence=terms.divergence,
        rehearsal=terms.rehearsal,
        pool=pool,
        gate_learning_rate=control.gate_learning_rate,
        positions=terms.positions,
        keep=control.keep,
        args=args,
        train_dataset=rows,
        processing_class=tokenizer,
        callbacks=list(callbacks),
    )
    if "data" in states:
        trainer.data_collator = WithStates(trainer.data_collator, states["data"])
    trainer.fit(checkpoints.newest(directory, processes.count()))
    if train.compile:
        precision.run_uncompiled(model)
    model = distributed.whole(model)
    model.set_attn_implementation(attention)
    if isinstance(model, ControlLLMForCausalLM):
        model.model.keep_branches = False
    for name, parameter in model.named_parameters():
        # A copy of what trained: DeepSpeed's are views of one buffer.
        parameter.data = parameter.data.to(types[name], copy=parameter.requires_grad)
        parameter.grad = None
    trainer.accelerator.free_memory()
    placed: Any = model
    return placed.to(processes.device()), trainer.state
