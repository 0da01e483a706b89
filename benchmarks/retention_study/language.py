"""The retention study's second kind of task: continual pre-training on a synthetic language.

A language is a list of words and, for each, four words that may follow it with fixed probabilities; a document is one
sentence. A base learns three languages from text; the new one is a fourth, of the same letters. Scored is the next
character. Nothing marks which language a document is in but its words.
"""

import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel

from retention_study.base import CONTEXT, LETTERS, train_base
from retention_study.tasks import Row, Score, token_accuracy
from training.recipe import Train
from training.skills import Split
from training.tokenizer import character_tokenizer

ORIGINALS = ("first", "second", "third")
WORDS = 40
FOLLOWED = (0.5, 0.25, 0.15, 0.1)
SENTENCE = (2, 4)
DOCUMENTS = 100
"""Evaluation documents of a language and split."""


class Chain:
    """A language: its words, and which of them may follow which."""

    def __init__(self, name: str) -> None:
        rng = random.Random(name)
        self.words = sorted({"".join(rng.choices(LETTERS, k=rng.randint(3, 5))) for _ in range(WORDS)})
        self.next = {word: rng.sample(self.words, len(FOLLOWED)) for word in self.words}

    def sentence(self, rng: random.Random) -> str:
        """Two to four words and a full stop."""
        words = [rng.choice(self.words)]
        for _ in range(rng.randint(*SENTENCE) - 1):
            words += rng.choices(self.next[words[-1]], FOLLOWED)
        return " ".join(words) + "."


LANGUAGES = {name: Chain(name) for name in (*ORIGINALS, "new")}


def stream(language: str, split: Split, seed: int) -> Iterator[str]:
    """Yield sentences for ever; the splits are draws of their own."""
    rng = random.Random(f"{seed}/{language}/{split}")
    while True:
        yield LANGUAGES[language].sentence(rng)


class Language:
    """Three languages that a base knows, and a fourth."""

    name = "language"
    base = "languages"
    max_tokens = 40
    alphabet = LETTERS + " ."
    learned = 0.7
    wanted = 0.74

    def __init__(self) -> None:
        self.tokenizer = character_tokenizer(CONTEXT, self.alphabet)
        self.tokenizer.chat_template = None  # this is plain text

    def make_base(self, seed: int, out: Path, train: Train) -> None:
        """Train a base on the three languages."""
        rows = self._dataset(_originals(train.steps * train.batch_size, seed), train.batch_size)
        train_base(self.tokenizer, rows, seed, train, out)

    def rows(self, count: int, seed: int, replayed: float, batch_size: int) -> Dataset:
        """Documents of the new language, and where wanted of the others."""
        rng = random.Random(f"{seed}/replay")
        old, new = iter(_originals(count, seed)), stream("new", "train", seed)
        return self._dataset([next(old) if rng.random() < replayed else next(new) for _ in range(count)], batch_size)

    def score(self, model: PreTrainedModel, split: Split, seed: int, **forward: Any) -> Score:
        """Share of characters that are the most probable one."""
        pad = self.tokenizer.pad_token_id
        found = {
            name: token_accuracy(model, self._held_out(name, split, seed), pad, **forward)
            for name in (*ORIGINALS, "new")
        }
        return Score(found.pop("new"), found)

    def score_new(self, model: PreTrainedModel, split: Split, seed: int) -> float:
        """The same of the new language alone."""
        return token_accuracy(model, self._held_out("new", split, seed), self.tokenizer.pad_token_id)

    @cache  # noqa: B019 - one task exists in all
    def _held_out(self, language: str, split: Split, seed: int) -> list[Row]:
        documents = stream(language, split, seed)
        return [self._row(next(documents)) for _ in range(DOCUMENTS)]

    def _row(self, document: str) -> Row:
        end = self.tokenizer.eos_token_id
        ids = [end, *self.tokenizer(document, add_special_tokens=False)["input_ids"], end]
        return {"input_ids": ids, "labels": ids}

    def _dataset(self, documents: list[str], batch_size: int) -> Dataset:
        tokenizer = self.tokenizer
        end = tokenizer.eos_token_id
        encoded = tokenizer(documents, add_special_tokens=False)["input_ids"]
        return Dataset.from_list([{"input_ids": [end, *ids, end], "labels": [end, *ids, end]} for ids in encoded])


def _originals(count: int, seed: int) -> list[str]:
    rng = random.Random(f"{seed}/originals")
    streams = [stream(name, "train", seed) for name in ORIGINALS]
    return [next(rng.choice(streams)) for _ in range(count)]
