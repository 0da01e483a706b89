"""Requests with one answer each, from the demo's generated skills and from JSONL files of chats that are scored.

A line of a file is a chat in any format of `training.data.formats`, and ends with the assistant's answer. For training
they become token sequences with the loss on the answer, and where asked for on the request too.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from training import skills
from training.data import template
from training.data.formats import DataError, Message, detect, parse
from training.data.rows import IGNORED
from training.data.sources import json_lines
from training.recipe import FileSkill


@dataclass(frozen=True)
class Chat:
    """A conversation up to the request, and its answer."""

    messages: tuple[Message, ...]
    answer: str

    @property
    def prompt(self) -> str:
        """The last request, for display."""
        return self.messages[-1]["content"]


def chat(example: skills.Example) -> Chat:
    """A demo skill's example as a conversation of one request."""
    return Chat(({"role": "user", "content": example.prompt},), example.answer)


def read_jsonl(path: Path) -> list[Chat]:
    """Read conversations; blank lines are skipped.

    Raises:
        DataError: names the file, the line and the field.
    """
    chats = [_chat(record, where) for where, record in json_lines(path)]
    if not chats:
        raise DataError(f"{path}: no conversation in it")
    return chats


def _chat(record: object, where: str) -> Chat:
    messages = parse(record, detect(record, where), where)["messages"]
    if [message["role"] for message in messages[-2:]] != ["user", "assistant"]:
        raise DataError(f"{where}: expected a conversation with a user's message and the assistant's answer at its end")
    return Chat(tuple(messages[:-1]), messages[-1]["content"])


def draw(skill: str, split: skills.Split, count: int, seed: int) -> list[Chat]:
    """Draw `count` examples of a demo skill for training."""
    stream = skills.generate(skill, split, seed)
    return [chat(next(stream)) for _ in range(count)]


def held_out(source: str | FileSkill, split: skills.Split, count: int, seed: int) -> list[Chat]:
    """Up to `count` distinct evaluation prompts of a source."""
    if isinstance(source, str):
        return [chat(example) for example in skills.unique(source, split, count, seed)]
    path = source.validation if split == "validation" else source.test
    if path is None:
        raise DataError(f"skill {source.name!r}: no {split} file is named in the recipe")
    return read_jsonl(path)[:count]


def mixture(weights: Mapping[str, float], count: int, seed: int) -> list[Chat]:
    """Draw `count` training examples from several demo skills in proportion to their weights."""
    rng = random.Random(f"{seed}/mixture")
    streams = {name: skills.generate(name, "train", seed) for name in weights}
    names = rng.choices(list(weights), list(weights.values()), k=count)
    return [chat(next(streams[name])) for name in names]


def encode(tokenizer: PreTrainedTokenizerBase, item: Chat, learn_prompt: bool = False) -> dict[str, list[int]]:
    """Token ids and labels of one conversation; the request is left out of the loss unless `learn_prompt`."""
    messages = list(item.messages)
    prompt = token_ids(tokenizer, messages)
    whole = template.ids(tokenizer, [*messages, {"role": "assistant", "content": item.answer}])
    if whole[: len(prompt)] != prompt:
        raise DataError("the tokenizer's chat template does not render the request as a prefix of the conversation")
    labels = whole if learn_prompt else [IGNORED] * len(prompt) + whole[len(prompt) :]
    return {"input_ids": whole, "labels": labels}


def token_ids(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[int]:
    """A request as token ids, ready for the answer."""
    return template.ids(tokenizer, messages, add_generation_prompt=True)


def dataset(
    tokenizer: PreTrainedTokenizerBase,
    chats: Iterable[Chat],
    batch_size: int,
    prompt_share: float = 0.0,
    seed: int = 0,
) -> Dataset:
    """Tokenize conversations; of a random `prompt_share` of them the request is learned too.

    A share of 0.3 has the same expected gradient as a loss weight of 0.3 on all requests, and needs no weights.
    Within each run of `batch_size` examples, which make one update, the short ones come first: split into
    micro-batches they need little padding. (Grouping by length over the whole data makes updates of one skill each,
    and then nothing is learned.)
    """
    # Not the mixture's generator: its numbers would pick the skill and the learned requests together.
    rng = random.Random(f"{seed}/prompts")
    encoded = [encode(tokenizer, item, rng.random() < prompt_share) for item in chats]
    updates = (encoded[start : start + batch_size] for start in range(0, len(encoded), batch_size))
    return Dataset.from_list([row for rows in updates for row in sorted(rows, key=lambda r: len(r["input_ids"]))])
