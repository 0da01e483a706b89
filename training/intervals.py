"""95 % confidence intervals of what is measured. Pure functions of numbers."""

from collections.abc import Sequence
from math import sqrt
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

LEVEL = 0.95
RESAMPLES = 2000
_SEED = 0
_Z = NormalDist().inv_cdf(0.5 + LEVEL / 2)


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float


def wilson(right: int, asked: int) -> Interval:
    """Wilson's score interval of a share: it keeps within 0 and 1, and is not empty at either end."""
    share, extra = right / asked, _Z**2 / asked
    middle = (share + extra / 2) / (1 + extra)
    half = _Z * sqrt(share * (1 - share) / asked + extra / (4 * asked)) / (1 + extra)
    # At the ends one bound is the share itself, which rounding would miss.
    return Interval(0.0 if right == 0 else middle - half, 1.0 if right == asked else middle + half)


def normal(value: float, standard_error: float) -> Interval:
    """Interval of a value whose standard error is known."""
    return Interval(value - _Z * standard_error, value + _Z * standard_error)


def bootstrap_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Interval | None:
    """Percentile interval of sum(numerators) / sum(denominators) over texts drawn again with replacement.

    The same `RESAMPLES` draws from a fixed seed in every call, so equal numbers have equal intervals, and what is
    measured on the same texts at several scales is resampled alike. None for a single text, which says nothing of
    others.
    """
    count = len(numerators)
    if count < 2:
        return None
    draws = np.random.default_rng(_SEED).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    ratios = (draws @ np.asarray(numerators)) / (draws @ np.asarray(denominators))
    low, high = np.quantile(ratios, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))
