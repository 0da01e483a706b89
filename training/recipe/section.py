"""What all sections of a recipe share."""

from pydantic import BaseModel, ConfigDict


class RecipeError(ValueError):
    """A recipe that cannot be used; the message names the field, the value and the choices."""


class Section(BaseModel):
    """A part of a recipe: unknown keys are refused, defaults are checked like given values."""

    model_config = ConfigDict(extra="forbid", validate_default=True)
