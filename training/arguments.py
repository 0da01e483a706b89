"""A recipe's `train` section as TRL's configuration. What TRL or transformers would switch on by themselves is off."""

from pathlib import Path

import torch
from trl import SFTConfig

from training import processes
from training.distributed import sharding_arguments
from training.recipe import RecipeError, Train

_SCHEDULES = {"cosine": "cosine_with_min_lr", "linear": "linear", "constant": "constant_with_warmup"}


def micro_batch(train: Train) -> int:
    """Examples in one forward pass of one process.

    Raises:
        RecipeError: An update cannot be divided evenly among the processes.
    """
    shares = processes.count() * train.accumulation
    if train.batch_size % shares:
        raise RecipeError(
            f"train.batch_size = {train.batch_size}: not a multiple of {processes.count()} processes times "
            f"train.accumulation ({train.accumulation})"
        )
    return train.batch_size // shares


def sft_config(
    train: Train, seed: int, directory: Path, save_every: int | None = None, packed: bool = False
) -> SFTConfig:
    """TRL's configuration of one optimisation.

    Args:
        train: The recipe's section.
        seed: Of what is random in training.
        directory: Where checkpoints go.
        save_every: Updates between checkpoints; None for none.
        packed: Rows hold several documents each, whose lengths are their `seq_lengths`.

    Raises:
        RecipeError: The section does not fit the machine or the number of processes.
    """
    # As a share of the first one: an optimizer of DeepSpeed's does not tell its learning rate.
    final = train.final_learning_rate / train.learning_rate
    return SFTConfig(
        output_dir=str(directory),
        max_steps=train.steps,
        per_device_train_batch_size=micro_batch(train),
        gradient_accumulation_steps=train.accumulation,
        learning_rate=train.learning_rate,
        lr_scheduler_type=_SCHEDULES[train.schedule],
        lr_scheduler_kwargs={"min_lr_rate": final} if train.schedule == "cosine" else None,
        warmup_steps=train.warmup_steps,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        logging_steps=train.log_every,
        # `data.dataset` has put the examples into the order in which they are wanted.
        train_sampling_strategy="sequential",
        use_cpu=not torch.accelerator.is_available(),  # accelerate does not look for other processes on a CPU unasked
        dataloader_pin_memory=torch.cuda.is_available(),
        seed=seed,
        max_length=None,
        padding_free=packed,  # one flat row without a mask: documents are told apart by their positions
        bf16=train.precision == "bf16",
        gradient_checkpointing=train.checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False} if train.checkpointing else None,
        # Every trainable parameter gets a gradient in every backward pass, a gate from the divergence loss alone if
        # need be: that one does not hang on the model's output, where DDP would look for it.
        ddp_find_unused_parameters=False,
        ddp_timeout=int(processes.LONGEST_WAIT.total_seconds()),
        save_strategy="no" if save_every is None else "steps",
        save_steps=save_every or train.steps,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        **sharding_arguments(train),
    )
