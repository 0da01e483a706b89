"""Model ids: which names a server answers to, and which control scale each name means."""

from dataclasses import dataclass

BASE_SUFFIX = ":base"
BASE_SCALE = 0.0
_FORBIDDEN = ":@/"


@dataclass(frozen=True)
class ModelIds:
    """The ids of one checkpoint: `NAME` and `NAME:base`.

    Args:
        name: NAME; holds none of ``: @ /``, which ids use themselves.
        default_scale: Control scale that NAME stands for.

    Raises:
        ValueError: The name is empty or holds a forbidden character.
    """

    name: str
    default_scale: float

    def __post_init__(self) -> None:
        if not self.name or any(character in _FORBIDDEN for character in self.name) or not self.name.isprintable():
            raise ValueError(
                f"name: {self.name!r} must be printable, not empty, and hold none of {' '.join(_FORBIDDEN)}"
            )

    @property
    def listed(self) -> list[str]:
        """Ids that `/v1/models` lists, NAME first."""
        return [self.name, self.name + BASE_SUFFIX]

    def scale_of(self, model_id: str) -> float | None:
        """Return the control scale that an id means, None if the server does not answer to it."""
        scales = {self.name: self.default_scale, self.name + BASE_SUFFIX: BASE_SCALE}
        return scales.get(model_id)
