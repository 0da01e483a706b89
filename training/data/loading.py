"""From a recipe's `data` section to encoded rows on disk.

The files lie under a cache directory, where a resumed run and other processes find them again; their keys are the
content of the data, the tokenizer and the settings. What a first record tells is said before any source is read whole.
"""

import hashlib
import logging
import tempfile
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from training.data import template
from training.data.corpus import Corpus, Part
from training.data.facts import Facts, describe
from training.data.formats import DataError
from training.data.rows import ROW, Encoder
from training.data.sources import BATCH, Reading, look, read
from training.recipe.data import Data

log = logging.getLogger(__name__)
_DONE = {"truncate": "truncated", "drop": "dropped", "split": "split into pieces"}


def load(settings: Data, tokenizer: PreTrainedTokenizerBase, context: int, cache: Path) -> Corpus:
    """Read and encode the sources.

    Args:
        settings: The recipe's section.
        tokenizer: The base model's.
        context: The longest sequence that the base model takes, in tokens.
        cache: Directory for the encoded rows.

    Raises:
        DataError: A source cannot be used; names the file and line.
    """
    max_length = settings.max_length or context
    if max_length > context:
        raise DataError(f"data.max_length = {max_length}: the base model's context is {context} tokens")
    readings = [_look(number, settings, tokenizer) for number in range(len(settings.sources))]
    encoder = Encoder(tokenizer, max_length, settings.overlong, settings.learn)
    parts = [_part(reading, encoder, settings, cache) for reading in readings]
    return Corpus(parts, max_length, settings.packing)


def _look(number: int, settings: Data, tokenizer: PreTrainedTokenizerBase) -> Reading:
    """Decide how a source is read, and whether the settings and the tokenizer go with it."""
    source = settings.sources[number]
    try:
        reading = look(source)
    except DataError as error:
        raise DataError(f"data.sources.{number}: {error}") from error
    if reading.is_conversation and tokenizer.chat_template is None:
        raise DataError(
            f"data.sources.{number}: {source.label} holds conversations, and the base's tokenizer has no chat "
            "template: name one in data.chat_template, or use text or prompts and completions"
        )
    if settings.overlong == "split" and reading.format != "text":
        raise DataError(
            f"data.overlong = 'split': pieces of {source.label} ({reading.format}) would lose their prompt; choose "
            "truncate or drop"
        )
    return reading


def _part(reading: Reading, encoder: Encoder, settings: Data, cache: Path) -> Part:
    examples = read(reading, cache)
    rows = examples.map(
        encoder.batch,
        batched=True,
        batch_size=BATCH,
        remove_columns=examples.column_names,
        features=ROW,
        num_proc=settings.workers if settings.workers > 1 else None,
        # The library's own key would pickle the tokenizer, whose state changes as it is used.
        new_fingerprint=_key(reading, encoder),
        desc=f"encode {reading.source.label}",
    )
    numbers = rows.with_format("numpy")
    tokens, learned, overlong = (numbers[name][:] for name in ("tokens", "learned", "overlong"))
    used = learned > 0
    if settings.overlong == "drop":
        used &= ~overlong
    source = reading.source
    facts = Facts(
        source=source.label,
        format=reading.format,
        detected=source.format == "auto",
        unused=reading.unused,
        digest=reading.digest,
        examples=len(examples),
        rows=int(used.sum()),
        overlong=int(overlong.sum()),
        treated=_DONE[settings.overlong],
        empty=int((learned == 0).sum()),
        tokens=int(tokens[used].sum()),
        learned=int(learned[used].sum()),
        share=source.weight / sum(other.weight for other in settings.sources),
    )
    log.info("data: %s", describe(facts))
    if not facts.rows:
        raise DataError(f"{source.path or source.label}: nothing to learn from in it ({describe(facts)})")
    if reading.is_conversation and settings.learn == "completion":
        if not template.teaches_to_stop(encoder.tokenizer, encoder.render(examples[0])[-1]):
            log.warning("data: %s: no message that is learned has an end token: answers may not end", source.label)
    return Part(rows, np.flatnonzero(used), tokens[used].astype(np.int64), source.weight, facts)


def _key(reading: Reading, encoder: Encoder) -> str:
    """What encoded rows depend on, as a key for the cache."""
    with tempfile.TemporaryDirectory() as directory:
        encoder.tokenizer.save_pretrained(directory)
        tokenizer = b"".join(file.read_bytes() for file in sorted(Path(directory).rglob("*")) if file.is_file())
    settings = f"{reading.key} {encoder.max_length} {encoder.overlong} {encoder.learn}"
    return hashlib.sha256(settings.encode() + tokenizer).hexdigest()[:32]
