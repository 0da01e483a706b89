"""The retention study's first kind of task: six small skills that a base knows, and one that is new to it.

The new skill, `foreign`, reverses a word and maps its letters through a fixed table. Every letter of it occurs in the
base's data. Which split an example belongs to is decided by a hash of its content. Knows nothing of methods or of how
runs are compared.
"""

import random
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel

from retention_study.base import CONTEXT, LETTERS, train_base
from retention_study.tasks import Row, Score, exact_match
from training import data
from training.recipe import Train
from training.skills import Content, Example, Skill, Split, split_of
from training.tokenizer import character_tokenizer

TABLE = str.maketrans(LETTERS, "kehcombifagdplnj")
MARKER = "~"
"""Opens a request of the new skill; the base never saw it."""
PROMPTS = 100
"""Evaluation prompts of a skill; the sums have fewer."""
PROMPT_SHARE = 0.3
"""Share of the base's examples whose request is learned too: a base that never learned any cannot write them."""


def _word(rng: random.Random) -> str:
    return "".join(rng.choice(LETTERS) for _ in range(rng.randint(3, 5)))


def _letter_and_word(rng: random.Random) -> Content:
    letter, word = rng.choice(LETTERS), list(_word(rng))
    for _ in range(rng.randint(0, 2)):
        word[rng.randrange(len(word))] = letter
    return letter, "".join(word)


def _numbers(low: int, high: int) -> Callable[[random.Random], Content]:
    return lambda rng: (str(rng.randint(low, high)), str(rng.randint(low, high)))


def _skill(name: str, wording: str, draw: Callable[[random.Random], Content], answer: Callable[..., str]) -> Skill:
    return Skill(name, name, (wording,), draw, lambda content: answer(*content))


def _one_word(rng: random.Random) -> Content:
    return (_word(rng),)


ORIGINALS = (
    _skill("copy", ">{0}", _one_word, lambda word: word),
    _skill("reverse", "<{0}", _one_word, lambda word: word[::-1]),
    _skill("upper", "^{0}", _one_word, str.upper),
    _skill("add", "{0}+{1}", _numbers(0, 19), lambda a, b: str(int(a) + int(b))),
    _skill("max", "{0}|{1}", _numbers(10, 99), lambda a, b: max(a, b, key=int)),
    # Marked first, then counted (`kaKk2`): a base of this size does not learn the bare number in a thousand steps.
    _skill("count", "{0}?{1}", _letter_and_word, lambda a, word: f"{word.replace(a, a.upper())}{word.count(a)}"),
)
DRAWN = (1, 1, 1, 3, 2, 2)
"""How often the base sees each of them: the loss is a mean over tokens, in which short answers drown."""


def stream(skill: Skill, split: Split, seed: int) -> Iterator[Example]:
    """Yield examples of one split for ever."""
    rng = random.Random(f"{seed}/{skill.name}/{split}")
    while True:
        content = skill.draw(rng)
        if split_of(skill, content) == split:
            yield skill.example(content)


def foreign(marker: bool) -> Skill:
    """The new skill; its requests carry a marker or are told by the lack of any."""
    return _skill("foreign", (MARKER if marker else "") + "{0}", _one_word, lambda word: word[::-1].translate(TABLE))


class Skills:
    """Six skills and a new one."""

    base = "skills"
    max_tokens = 24
    alphabet = LETTERS + LETTERS.upper() + "0123456789><^+|?"
    learned = 0.9
    wanted = 0.98

    def __init__(self, name: str, new: Skill) -> None:
        self.name = name
        self.new = new
        self.tokenizer = character_tokenizer(CONTEXT, self.alphabet + MARKER)

    def make_base(self, seed: int, out: Path, train: Train) -> None:
        """Train a base on the original skills."""
        count = train.steps * train.batch_size
        rows = data.dataset(self.tokenizer, _originals(count, seed), train.batch_size, PROMPT_SHARE, seed)
        train_base(self.tokenizer, rows, seed, train, out)

    def rows(self, count: int, seed: int, replayed: float, batch_size: int) -> Dataset:
        """Rows of the new skill, and where wanted of the originals; the loss is on answers only."""
        rng = random.Random(f"{seed}/replay")
        old, new = iter(_originals(count, seed)), stream(self.new, "train", seed)
        chats = [next(old) if rng.random() < replayed else data.chat(next(new)) for _ in range(count)]
        return data.dataset(self.tokenizer, chats, batch_size, seed=seed)

    def score(self, model: PreTrainedModel, split: Split, seed: int, **forward: Any) -> Score:
        """Share of exactly right greedy answers."""
        pad = self.tokenizer.pad_token_id
        found = {s.name: exact_match(model, self._held_out(s, split, seed), pad, **forward) for s in ORIGINALS}
        return Score(exact_match(model, self._held_out(self.new, split, seed), pad, **forward), found)

    def score_new(self, model: PreTrainedModel, split: Split, seed: int) -> float:
        """The same of the new skill alone."""
        return exact_match(model, self._held_out(self.new, split, seed), self.tokenizer.pad_token_id)

    @cache  # noqa: B019 - two tasks exist in all
    def _held_out(self, skill: Skill, split: Split, seed: int) -> list[Row]:
        examples = stream(skill, split, seed)
        distinct = {example.prompt: example for example in (next(examples) for _ in range(20 * PROMPTS))}
        return [data.encode(self.tokenizer, data.chat(example)) for example in list(distinct.values())[:PROMPTS]]


def _originals(count: int, seed: int) -> list[data.Chat]:
    """Training examples of the original skills, as the base sees them."""
    rng = random.Random(f"{seed}/originals")
    streams = [stream(skill, "train", seed) for skill in ORIGINALS]
    return [data.chat(next(examples)) for examples in rng.choices(streams, DRAWN, k=count)]
