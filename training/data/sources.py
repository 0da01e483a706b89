"""Where records come from: JSONL and Parquet files, and datasets of the Hugging Face Hub.

Everything is read as a stream and written to disk as Arrow, so that data larger than memory can be used.
"""

import functools
import hashlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pyarrow
from datasets import Dataset, Features, List, Value
from datasets.exceptions import DatasetGenerationError, DatasetsError
from pyarrow import parquet

from training.data.formats import FORMATS, DataError, Example, detect, parse, present
from training.recipe.data import FormatName, Source

BATCH = 100
"""Examples held in memory at once: the library's default is 1000, and 1000 long documents can be gigabytes."""

_EXAMPLE = Features(
    {
        "where": Value("string"),
        "messages": List({"role": Value("string"), "content": Value("string")}),
        "first": Value("int32"),
        "prompt": Value("string"),
        "completion": Value("string"),
    }
)


@dataclass(frozen=True)
class Reading:
    """How a source is read: decided by its first record, before the rest is looked at.

    Attributes:
        source: What was asked for.
        format: The format of every record.
        is_conversation: Whether its examples go through the chat template.
        unused: Fields of the first record that the format does not know.
        digest: SHA-256 of the content, or what `datasets` tells a Hub dataset's versions apart by.
    """

    source: Source
    format: FormatName
    is_conversation: bool
    unused: tuple[str, ...]
    digest: str

    @property
    def key(self) -> str:
        """What its examples depend on, as a key for caches."""
        parts = (self.digest, self.format, str(self.source.max_examples), self.source.label)
        return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:32]


def look(source: Source) -> Reading:
    """Look at a source's first record.

    Raises:
        DataError: There is no such file or dataset, nothing is in it, or its first record cannot be used.
    """
    first = next(records(source), None)
    if first is None:
        raise DataError(f"{source.path or source.label}: no record in it")
    where, record = first
    name = detect(record, where) if source.format == "auto" else source.format
    example = parse(record, name, where)
    form = FORMATS[name]
    unused = tuple(field for field in present(record) if field not in (*form.fields, *form.optional))
    return Reading(source, name, bool(example["messages"]), unused, _digest(source))


def read(reading: Reading, cache: Path) -> Dataset:
    """Return all examples of a source as an Arrow dataset under `cache`, where an earlier call's is found again.

    Raises:
        DataError: A record cannot be used; names the file and line.
    """
    try:
        return Dataset.from_generator(
            _examples,
            features=_EXAMPLE,
            cache_dir=str(cache),
            writer_batch_size=BATCH,
            gen_kwargs={"source": reading.source, "name": reading.format},
            # The library's own key would be the path, whatever is in the file by now.
            fingerprint=reading.key,
        )
    except DatasetGenerationError as error:
        if isinstance(error.__cause__, DataError):
            raise error.__cause__ from None
        raise


def records(source: Source) -> Iterator[tuple[str, Any]]:
    """Yield each record of a source with the place where it stands.

    Raises:
        DataError: A file or dataset cannot be read.
    """
    found = _hub_records(source) if source.path is None else _file_records(source.path)
    return itertools.islice(found, source.max_examples)


def json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield each record of a JSONL file with its place, `FILE:LINE`; blank lines are skipped.

    Raises:
        DataError: The file cannot be read, or a line is not JSON in UTF-8.
    """
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    try:
                        yield f"{path}:{number}", json.loads(line)
                    except ValueError as error:
                        raise DataError(f"{path}:{number}: not JSON: {error}") from error
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error


def _examples(source: Source, name: FormatName) -> Iterator[Example]:
    for where, record in records(source):
        yield parse(record, name, where)


def _file_records(path: Path) -> Iterator[tuple[str, Any]]:
    for file in _files(path):
        yield from _READERS[file.suffix](file)


def _files(path: Path) -> list[Path]:
    """The files of a source in order: one, or those of a directory.

    Raises:
        DataError: Nothing to read, or files of more than one kind.
    """
    found = [path]
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if file.suffix in _READERS)
        if not found:
            raise DataError(f"{path}: a directory without {' or '.join(_READERS)} files")
        if len({file.suffix for file in found}) > 1:
            raise DataError(f"{path}: a directory with both {' and '.join(_READERS)} files; name one kind")
    elif path.suffix not in _READERS:
        raise DataError(f"{path}: {path.suffix or 'no suffix'} is not one of {', '.join(_READERS)}")
    return found


def _parquet_rows(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        with parquet.ParquetFile(path) as file:
            rows = itertools.chain.from_iterable(batch.to_pylist() for batch in file.iter_batches())
            for number, row in enumerate(rows, 1):
                yield f"{path}:{number}", row
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path}: {error}") from error


_READERS = {".jsonl": json_lines, ".parquet": _parquet_rows}


def _hub_records(source: Source) -> Iterator[tuple[str, Any]]:
    for number, row in enumerate(_hub(source.hub, source.config, source.split, source.revision), 1):
        yield f"{source.label}:{number}", row


@functools.cache
def _hub(name: str, config: str | None, split: str | None, revision: str | None) -> Dataset:
    """A dataset of the Hub; one version of it for the whole run, even if it changes there."""
    try:
        return datasets.load_dataset(name, config, split=split, revision=revision)
    except (OSError, ValueError, DatasetsError) as error:
        raise DataError(f"hub = {name!r}: {error}") from error


def _digest(source: Source) -> str:
    if source.path is None:
        return str(_hub(source.hub, source.config, source.split, source.revision)._fingerprint)
    whole = hashlib.sha256()
    for file in _files(source.path):
        with file.open("rb") as content:
            whole.update(hashlib.file_digest(content, "sha256").digest())
    return whole.hexdigest()
