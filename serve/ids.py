"""Model ids: which names a server answers to, and which control scale each name means. Imports nothing heavy."""

import re
from dataclasses import dataclass

BASE_SUFFIX = ":base"
SCALE_MARK = "@"
BASE_SCALE = 0.0
_FORBIDDEN = ":@/"
_DECIMAL = re.compile(r"[0-9]+(\.[0-9]+)?")  # what float() also reads, such as 1e-1, +1 or 1_0, has no place in an id


@dataclass(frozen=True)
class ModelIds:
    """The ids of one checkpoint: `NAME`, `NAME:base`, and `NAME@0.5` with any scale.

    Args:
        name: NAME; holds none of ``: @ /``, which ids use themselves.
        default_scale: Control scale that NAME stands for.
        max_scale: Largest scale of an id.

    Raises:
        ValueError: The name is empty or holds a forbidden character.
    """

    name: str
    default_scale: float
    max_scale: float

    def __post_init__(self) -> None:
        check_name(self.name)

    @property
    def listed(self) -> list[str]:
        """Ids that `/v1/models` lists, NAME first."""
        return [self.name, self.name + BASE_SUFFIX]

    def fixes(self, model_id: str) -> bool:
        """Whether an id of this checkpoint names its scale itself: all do but NAME."""
        return model_id != self.name

    def scale_of(self, model_id: str) -> float | None:
        """Return the control scale that an id means, None if the server does not answer to it.

        Raises:
            ValueError: The id is this checkpoint's, with a scale that is not allowed.
        """
        from cllm_model.scale import check_scale

        name, mark, scale = model_id.partition(SCALE_MARK)
        if mark and name == self.name:
            if _DECIMAL.fullmatch(scale) is None:
                raise ValueError(f"model: {model_id!r} does not end in a number; an example is {self.name}@0.5")
            return check_scale(float(scale), "model", self.max_scale)
        return {self.name: self.default_scale, self.name + BASE_SUFFIX: BASE_SCALE}.get(model_id)


def check_name(name: str) -> None:
    """Check that ids can be made from a name.

    Raises:
        ValueError: They cannot.
    """
    if not name or any(character in _FORBIDDEN for character in name) or not name.isprintable():
        raise ValueError(f"name: {name!r} must be printable, not empty, and hold none of {' '.join(_FORBIDDEN)}")
