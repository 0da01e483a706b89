"""Figures that the reports share."""

from collections.abc import Sequence


def quantiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Return p50, p99 and the largest of some values, by nearest rank; zeros if there are none."""
    ordered = sorted(values) or [0.0]
    half, most = (ordered[round(share * (len(ordered) - 1))] for share in (0.5, 0.99))
    return half, most, ordered[-1]
