"""Which examples are trained on, in which order: weighted draws from several sources, a pure function of the seed.

Each source is gone through in a random order, and in a new one whenever it starts again; which source is next is drawn
by weight. A longer order begins with the shorter one, so that a longer run sees the same examples first.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def draw(sizes: Sequence[int], weights: Sequence[float], count: int, seed: int) -> NDArray[np.int64]:
    """Return `count` indices into the sources laid end to end.

    Args:
        sizes: Number of examples in each source.
        weights: How often each is drawn from, relative to the others.
        count: How many to draw.
        seed: Decides everything.
    """
    shares = np.cumsum(weights) / np.sum(weights)
    # The last share may be rounded to below 1, where a draw could miss every source.
    sources = np.searchsorted(shares[:-1], np.random.default_rng([seed, 0]).random(count), side="right")
    drawn = np.empty(count, dtype=np.int64)
    start = 0
    for number, size in enumerate(sizes):
        places = np.flatnonzero(sources == number)
        passes = np.tile(np.arange(start, start + size), (-(-len(places) // size), 1))  # one in each row
        np.random.default_rng([seed, 1 + number]).permuted(passes, axis=1, out=passes)
        drawn[places] = passes.ravel()[: len(places)]
        start += size
    return drawn


def short_first(order: NDArray[np.int64], lengths: NDArray[np.integer], batch_size: int) -> NDArray[np.int64]:
    """Sort each run of `batch_size` examples, which make one update, by length: its micro-batches need little padding.

    (Grouped by length over the whole data, updates hold one kind of example each, and less is learned.)
    """
    updates = np.split(order, range(batch_size, len(order), batch_size))
    return np.concatenate([update[np.argsort(lengths[update], kind="stable")] for update in updates])
