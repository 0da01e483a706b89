"""Where rehearsed requests come from: the model itself, chance, or a file. Token sequences that a model continues."""

import random
from collections.abc import Iterator
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from training.data.formats import DataError
from training.data.sources import json_lines
from training.recipe import Rehearsal
from training.recipe.section import RecipeError

_MARK = "rehearsed request"


def requests(tokenizer: PreTrainedTokenizerBase, settings: Rehearsal, seed: int) -> Iterator[list[int]]:
    """Yield token ids to be continued, for ever, from the recipe's sources in turn.

    Raises:
        DataError: the recipe's file gives no request.
        RecipeError: its alphabet gives none.
    """
    streams = [_SOURCES[name](tokenizer, settings, random.Random(f"{seed}/{name}")) for name in settings.sources]
    while True:
        yield from (next(stream) for stream in streams)


def _sampled(tokenizer: PreTrainedTokenizerBase, settings: Rehearsal, rng: random.Random) -> Iterator[list[int]]:
    """Only what opens a request: the model writes it, then answers it (as in Magpie, arXiv 2406.08464)."""
    before, _ = frame(tokenizer)
    while True:
        yield before


def _random(tokenizer: PreTrainedTokenizerBase, settings: Rehearsal, rng: random.Random) -> Iterator[list[int]]:
    """Requests of a few random tokens."""
    before, after = frame(tokenizer)
    special = set(tokenizer.all_special_ids)
    tokens = range(len(tokenizer)) if settings.alphabet is None else sorted(set(_ids(tokenizer, settings.alphabet)))
    choices = [token for token in tokens if token not in special]
    if not choices:
        raise RecipeError(f"rehearsal.alphabet = {settings.alphabet!r}: the tokenizer has no token for any of it")
    while True:
        yield [*before, *rng.choices(choices, k=rng.randint(*settings.random_tokens)), *after]


def _from_file(tokenizer: PreTrainedTokenizerBase, settings: Rehearsal, rng: random.Random) -> Iterator[list[int]]:
    """The requests of a file, in a new order each time round."""
    assert settings.file is not None
    before, after = frame(tokenizer)
    encoded = [_ids(tokenizer, text) for text in read_prompts(settings.file)]
    while True:
        for ids in rng.sample(encoded, len(encoded)):
            yield [*before, *ids, *after]


_SOURCES = {"sampled": _sampled, "random": _random, "file": _from_file}


def frame(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Token ids in front of a user's request and behind it, up to where the answer starts.

    A tokenizer without a chat template is one for plain text: a document starts behind its BOS token, or EOS if it
    has no BOS, and a request has nothing behind it.
    """
    if tokenizer.chat_template is None:
        start = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        return [start], []
    message = {"role": "user", "content": _MARK}
    text = tokenizer.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
    assert isinstance(text, str) and _MARK in text
    before, _, after = text.partition(_MARK)
    return _ids(tokenizer, before), _ids(tokenizer, after)


def read_prompts(path: Path) -> list[str]:
    """Read the requests of a JSONL file.

    Raises:
        DataError: names the file and the line.
    """
    found = []
    for where, record in json_lines(path):
        prompt = record.get("prompt") if isinstance(record, dict) else None
        if not isinstance(prompt, str) or not prompt:
            raise DataError(f'rehearsal.file {where}: expected {{"prompt": "…"}}, found {str(record)[:80]}')
        found.append(prompt)
    if not found:
        raise DataError(f"rehearsal.file {path}: no prompt in it")
    return found


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])
