"""What the retention study asks of a kind of task, and the scoring that both kinds share."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from training.losses import IGNORED
from training.recipe import Train
from training.skills import Split

Row = dict[str, list[int]]


class Score(NamedTuple):
    """Scores of one split, from 0 to 1: the new skill's, and each original's."""

    new: float
    originals: dict[str, float]

    @property
    def old(self) -> float:
        """Mean over the originals."""
        return sum(self.originals.values()) / len(self.originals)


def merit(validation: Score, wanted: float) -> tuple[bool, float]:
    """What is chosen by: of all that learn the new skill what keeps the originals best, else what learns most."""
    reached = validation.new >= wanted
    return reached, validation.old if reached else validation.new


class Task(Protocol):
    """A base's skills, a new one, and how they are scored. Everything follows from a base's seed."""

    name: str
    tokenizer: PreTrainedTokenizerBase
    base: str
    """What its bases are called; tasks that share them give the same name."""
    max_tokens: int
    """Length of what a base writes for its rehearsal."""
    alphabet: str
    """Characters of random requests: those of the originals."""
    learned: float
    """Score of the new skill from which it counts as learned in the course of a training."""
    wanted: float
    """Validation score of the new skill that a learning rate, or an average with the base, has to reach."""

    def make_base(self, seed: int, out: Path, train: Train) -> None:
        """Train a base and write it."""
        ...

    def rows(self, count: int, seed: int, replayed: float, batch_size: int) -> Dataset:
        """Training rows of the new skill, a share of them replaced by rows of the originals."""
        ...

    def score(self, model: PreTrainedModel, split: Split, seed: int, **forward: Any) -> Score:
        """Score a model; `forward` is passed on to it."""
        ...

    def score_new(self, model: PreTrainedModel, split: Split, seed: int) -> float:
        """Score the new skill alone."""
        ...


@torch.inference_mode()
def hits(model: PreTrainedModel, rows: Sequence[Row], pad_token_id: int, **forward: Any) -> tuple[Tensor, Tensor]:
    """Which labels of a few hundred short rows are the model's most probable tokens, and which tokens have labels.

    A greedy answer is right exactly if each of its tokens is the most probable one behind the right ones before it, so
    one forward pass over the right answers tells what `generate` would.

    Returns:
        Two masks, (B, T - 1).
    """
    was_training = model.training
    model.eval()

    def padded(name: str, value: int) -> Tensor:
        tensors = [torch.tensor(row[name]) for row in rows]
        return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=value)

    ids, labels = padded("input_ids", pad_token_id), padded("labels", IGNORED)[:, 1:]
    mask = torch.tensor([[1] * len(r["input_ids"]) + [0] * (ids.shape[1] - len(r["input_ids"])) for r in rows])
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False, **forward).logits[:, :-1]
    model.train(was_training)
    return logits.argmax(dim=-1) == labels, labels != IGNORED


def exact_match(model: PreTrainedModel, rows: Sequence[Row], pad_token_id: int, **forward: Any) -> float:
    """Share of the rows whose labels a greedy answer gives in full."""
    right, counted = hits(model, rows, pad_token_id, **forward)
    return (right | ~counted).all(dim=1).float().mean().item()


def token_accuracy(model: PreTrainedModel, rows: Sequence[Row], pad_token_id: int, **forward: Any) -> float:
    """Share of all labels that are the most probable token."""
    right, counted = hits(model, rows, pad_token_id, **forward)
    return (right & counted).sum().item() / counted.sum().item()
