"""A training small enough to be run many times: a four-layer expanded model, rows of unequal lengths, rehearsal."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from cllm_model.divergence import Divergence
from cllm_model.expand import expand
from cllm_model.modeling import ControlLLMForCausalLM
from training.arguments import sft_config
from training.recipe import Rehearsal, Train
from training.tokenizer import character_tokenizer
from training.trainer import ControlTrainer

UPDATE = 4  # examples


def tokenizer() -> PreTrainedTokenizerFast:
    return character_tokenizer(64)


def write_base(directory: Path, **fields: int) -> Path:
    """Write a random base, unless it is there; `fields` are of its configuration."""
    if not directory.exists():
        torch.manual_seed(0)
        chars = tokenizer()
        config = LlamaConfig(
            **{
                "vocab_size": len(chars),
                "hidden_size": 16,
                "intermediate_size": 32,
                "num_hidden_layers": 4,
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
                "max_position_embeddings": 64,
                "initializer_range": 0.2,
                "pad_token_id": chars.pad_token_id,
                "eos_token_id": chars.eos_token_id,
                "bos_token_id": None,
                **fields,
            }
        )
        LlamaForCausalLM(config).save_pretrained(directory)
    return directory


def expanded(
    directory: Path, layers: int | list[int] = 2, method: str = "dlerp", factor: float | None = -1.0, **options: Any
) -> ControlLLMForCausalLM:
    """A fresh expansion of the base, with the pretrained weights frozen; `options` are `expand`'s."""
    base = write_base(directory / "base")
    out = directory / f"dual-{len(list(directory.iterdir()))}"
    expand(base, out, layers, method, factor, **options)
    model = ControlLLMForCausalLM.from_pretrained(out)
    model.freeze_pretrained()
    return model


def disturb(model: torch.nn.Module) -> None:
    """Move what trains a little, so that the branches differ and every term has a gradient."""
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)


def rows(steps: int = 3, seed: int = 0) -> Dataset:
    """Rows of 4 to 20 tokens, the first half of each not learned; `UPDATE` of them are an update."""
    rng = random.Random(seed)
    found = []
    for _ in range(UPDATE * steps):
        ids = [rng.randrange(5, 90) for _ in range(rng.randint(4, 20))]
        found.append({"input_ids": ids, "labels": [-100] * (len(ids) // 2) + ids[len(ids) // 2 :]})
    return Dataset.from_list(found)


class TinyPool:
    """As many rehearsed sequences for an update as for training, with the predictions of nobody in particular."""

    def __init__(self, parts: int) -> None:
        self.parts = parts

    def batch(self, update: int, part: int) -> dict[str, Tensor]:
        drawn = [row["input_ids"] for row in rows(1, seed=1000 + update)]
        share = UPDATE // self.parts
        mine = drawn[part * share : (part + 1) * share]
        width = max(map(len, mine))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in mine])
        logits = torch.stack([torch.linspace(-1, 1, 8).roll(int(token)) for token in ids.flatten()])
        logprobs = logits.view(*ids.shape, 8).log_softmax(-1)
        top, rest = logprobs[..., :7], logprobs[..., 7]  # of 8 classes: 7 tokens, and the others
        return {
            "input_ids": ids,
            "attention_mask": (ids != 0).long(),
            "top_ids": torch.arange(10, 17).expand(*ids.shape, 7),
            "top_logprobs": top,
            "rest_logprobs": rest,
        }


def trainer(
    model: ControlLLMForCausalLM,
    directory: Path,
    steps: int = 3,
    rehearse: bool = True,
    train: dict[str, Any] | None = None,
    save_every: int | None = None,
    parts: int | None = None,
    packed: bool = False,
    **changes: Any,
) -> ControlTrainer:
    """A trainer with every term of the loss.

    Args:
        rehearse: Whether to have the rehearsal terms.
        train: Changes to the recipe's section.
        parts: Of the pool; as many as micro-batches by default.
        packed: Rows hold several documents.
        changes: To the trainer's own arguments.
    """
    settings = {"steps": steps, "batch_size": UPDATE, "warmup_steps": 0, "log_every": 1} | (train or {})
    section = Train.model_validate(settings)
    arguments: dict[str, Any] = {"divergence": Divergence("mse", 1.0)} | changes
    if rehearse:
        arguments |= {"rehearsal": Rehearsal(), "pool": TinyPool(parts or section.accumulation)}
    return ControlTrainer(
        model=model,
        args=sft_config(section, 0, directory / "run", save_every, packed),
        train_dataset=arguments.pop("train_dataset", None) or rows(steps),
        processing_class=tokenizer(),
        **arguments,
    )


class Gradients(TrainerCallback):
    """Keeps the gradients of each update, and calls a function when there are new ones."""

    def __init__(self, then: Callable[[], None] = lambda: None) -> None:
        self.found: list[dict[str, Tensor]] = []
        self.then = then

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        named = kwargs["model"].named_parameters()
        self.found.append({name: p.grad.clone() for name, p in named if p.grad is not None})
        self.then()
