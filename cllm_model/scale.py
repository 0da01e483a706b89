"""The control scale: the dial between the base model (0) and the model as trained (1), extrapolated above.

``out = hp + scale * (merged - hp)`` in every dual-branch layer. One place says which values are allowed.
"""

import math

MIN_SCALE = 0.0
MAX_SCALE = 2.0
TRAINED_SCALE = 1.0
RESOLUTION = 1e-4
"""Scales are rounded to this step, so that equal scales have equal names, salts and fingerprints."""


def check_scale(value: object, field: str = "control_scale", max_scale: float = MAX_SCALE) -> float:
    """Return `value` as a control scale, rounded to `RESOLUTION`.

    Raises:
        ValueError: It is not a finite number from `MIN_SCALE` to `max_scale`, or is not 0 but rounds to 0.
    """
    allowed = f"allowed: a number from {MIN_SCALE:g} to {max_scale:g}"
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{field}: {value!r} is not a finite number; {allowed}")
    if not MIN_SCALE <= value <= max_scale:
        raise ValueError(f"{field}: {value!r} is out of range; {allowed}")
    rounded = round(float(value), 4)
    if value != 0 and rounded == 0:
        raise ValueError(
            f"{field}: {value!r} would be rounded to 0, the base model; {allowed}, in steps of {RESOLUTION:g}"
        )
    return rounded
