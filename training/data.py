"""Chat examples as token sequences ready for TRL: loss on the answer, and where asked for on the request too.

Sources are the demo skills and JSONL files; each line is `{"messages": [...]}` ending with the assistant's answer.
"""

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from training import skills
from training.recipe import FileSkill

Message = dict[str, str]
IGNORED = -100


class DataError(ValueError):
    """A data file that cannot be used; the message names the file, line and field."""


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
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {error}") from error
    chats = [_parse(f"{path}:{number}", line) for number, line in enumerate(lines, 1) if line.strip()]
    if not chats:
        raise DataError(f"{path}: no conversation in it")
    return chats


def _parse(where: str, line: str) -> Chat:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON: {error.msg}") from error
    messages = record.get("messages") if isinstance(record, dict) else None
    if not isinstance(messages, list) or len(messages) < 2:
        raise DataError(f"{where}: messages = {messages!r}: expected a list of at least two messages")
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            raise DataError(f"{where}: messages[{index}].content: expected text")
        if message.get("role") not in ("system", "user", "assistant"):
            raise DataError(
                f"{where}: messages[{index}].role = {message.get('role')!r}: expected system, user or assistant"
            )
    if messages[-1]["role"] != "assistant" or messages[-2]["role"] != "user":
        raise DataError(f"{where}: messages: expected a user's message and the assistant's answer at the end")
    return Chat(tuple({"role": m["role"], "content": m["content"]} for m in messages[:-1]), messages[-1]["content"])


def draw(source: str | FileSkill, split: skills.Split, count: int, seed: int) -> list[Chat]:
    """Draw `count` examples of a source for training; files are repeated in a new order as often as needed."""
    if isinstance(source, str):
        stream = skills.generate(source, split, seed)
        return [chat(next(stream)) for _ in range(count)]
    assert source.train is not None
    chats = read_jsonl(source.train)
    rng = random.Random(seed)
    drawn: list[Chat] = []
    while len(drawn) < count:
        drawn += rng.sample(chats, len(chats))
    return drawn[:count]


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
    whole = _ids(tokenizer.apply_chat_template([*messages, {"role": "assistant", "content": item.answer}]))
    if whole[: len(prompt)] != prompt:
        raise DataError("the tokenizer's chat template does not render the request as a prefix of the conversation")
    labels = whole if learn_prompt else [IGNORED] * len(prompt) + whole[len(prompt) :]
    return {"input_ids": whole, "labels": labels}


def token_ids(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[int]:
    """A request as token ids, ready for the answer."""
    return _ids(tokenizer.apply_chat_template(list(messages), add_generation_prompt=True))


def _ids(encoded: Any) -> list[int]:
    return list(encoded["input_ids"])


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
