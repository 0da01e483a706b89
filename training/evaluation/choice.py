"""The rule by which a checkpoint of a training, and a scale of the dial, is called the best. Pure functions of scores.

`RULE` is written into every report beside what it chose.
"""

from collections.abc import Mapping, Sequence
from math import fsum
from typing import NamedTuple

RULE = (
    "Retention is the mean, over the original skills, of score / score before (at most 1 for each, so that a gain in "
    "one pays for no loss in another; skills that scored 0 before are left out). Chosen is the highest score of the "
    "new skill among those whose retention is at least {floor:g}; where there is none, the highest min(new, "
    "retention). Ties go to the higher retention, then to {first}."
)


class Outcome(NamedTuple):
    """What a candidate achieved: score of the new skill, and share of the original skills that is left."""

    new: float
    retention: float


def retention(now: Mapping[str, float], before: Mapping[str, float]) -> float:
    """Share of the original skills that is left; 1 where there was nothing to lose.

    Args:
        now: Original skill -> score.
        before: The same skills, before training.
    """
    kept = [min(1.0, now[skill] / score) for skill, score in before.items() if score > 0]
    return fsum(kept) / len(kept) if kept else 1.0


def best(candidates: Sequence[Outcome], floor: float) -> int:
    """Index of the best candidate by `RULE`; of equal ones the first.

    Args:
        candidates: At least one.
        floor: Retention that is asked for.
    """
    if any(candidate.retention >= floor for candidate in candidates):
        ranks = [(c.retention >= floor, c.new, c.retention) for c in candidates]
    else:
        ranks = [(True, min(c), c.retention) for c in candidates]
    return max(range(len(ranks)), key=ranks.__getitem__)
