"""Encoded sources as one supply of rows, in any number and in training order.

The rows stay in Arrow files; memory holds a few numbers for each.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from datasets import Dataset, concatenate_datasets
from numpy.typing import NDArray

from training.data import order
from training.data.facts import Facts
from training.data.packing import pack


@dataclass(frozen=True)
class Part:
    """The encoded rows of one source.

    Attributes:
        rows: All of them.
        used: Indices of those that are trained on.
        lengths: Numbers of tokens of those.
        weight: How often they are drawn, relative to other sources.
        facts: The same in numbers, for people and reports.
    """

    rows: Dataset
    used: NDArray[np.int64]
    lengths: NDArray[np.int64]
    weight: float
    facts: Facts


class Corpus:
    """The training data of a run.

    Args:
        parts: The sources.
        max_length: Tokens in a row.
        packing: Several documents in a row.
    """

    def __init__(self, parts: Sequence[Part], max_length: int, packing: bool) -> None:
        self.max_length = max_length
        self.packing = packing
        self.facts = tuple(part.facts for part in parts)
        self._weights = [part.weight for part in parts]
        self._sizes = [len(part.used) for part in parts]
        self._rows = concatenate_datasets([part.rows for part in parts])
        starts = np.cumsum([0, *(len(part.rows) for part in parts[:-1])])
        self._used = np.concatenate([start + part.used for start, part in zip(starts, parts, strict=True)])
        self._lengths = np.concatenate([part.lengths for part in parts])
        self._mean_length = np.average([part.lengths.mean() for part in parts], weights=self._weights)  # of a draw

    def rows(self, count: int, batch_size: int, seed: int) -> Dataset:
        """Return the rows of a run in training order, a pure function of the data and these numbers.

        Rows hold `input_ids`, `labels` and `where`; packed ones `input_ids`, `labels` and `seq_lengths`, the lengths of
        their documents.

        Args:
            count: Number of rows: updates times batch size.
            batch_size: Rows in an update, of which the short ones come first.
            seed: Decides the order.
        """
        drawn = self._draw(count, seed)
        if not self.packing:
            drawn = order.short_first(drawn, self._lengths, batch_size)
            return self._rows.select(self._used[drawn]).select_columns(["input_ids", "labels", "where"])
        packed = pack(self._rows.select(self._used[drawn]), self._lengths[drawn], self.max_length)
        # Packing puts the rows with the longest documents first.
        return packed.shuffle(seed=seed).select(range(count))

    def passes(self, count: int, seed: int) -> list[float]:
        """Return how often the rows of a run go through each source."""
        sources = np.searchsorted(np.cumsum(self._sizes), self._draw(count, seed), side="right")
        return [float(np.sum(sources == number)) / size for number, size in enumerate(self._sizes)]

    def _draw(self, count: int, seed: int) -> NDArray[np.int64]:
        """Draw so many documents, or as many as fill so many packed rows whatever the packing."""
        if not self.packing:
            return order.draw(self._sizes, self._weights, count, seed)
        wanted = count * self.max_length
        documents = math.ceil(1.1 * wanted / self._mean_length)
        while True:
            drawn = order.draw(self._sizes, self._weights, documents, seed)
            tokens = np.cumsum(self._lengths[drawn])
            if tokens[-1] >= wanted:
                return drawn[: np.searchsorted(tokens, wanted) + 1]
            documents *= 2
