"""Reads a recipe from YAML, and says what is wrong with one."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from training.recipe.recipe import Recipe
from training.recipe.section import RecipeError


def load(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file; each override is `dotted.key=value` with the value in YAML.

    Raises:
        RecipeError: the file or an override is not a recipe.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"recipe {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"recipe {path} is not YAML: {error}") from error
    if not isinstance(tree, dict):
        raise RecipeError(f"recipe {path}: expected a mapping at the top, found {type(tree).__name__}")
    for override in overrides:
        _apply(tree, override)
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise RecipeError(f"recipe {path}: " + "; ".join(_explain(item) for item in error.errors())) from error


def _apply(tree: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise RecipeError(f"override {override!r}: expected dotted.key=value")
    *parents, last = key.split(".")
    for parent in parents:
        if tree.get(parent) is None:
            tree[parent] = {}
        tree = tree[parent]
        if not isinstance(tree, dict):
            raise RecipeError(f"override {override!r}: {parent!r} is not a section")
    try:
        tree[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"override {override!r}: the value is not YAML") from error


def _explain(error: Any) -> str:
    """One pydantic error as: field, what was given, what is allowed."""
    # A union adds the tag of the branch it tried to the location: not part of the user's field.
    path = [str(part) for part in error["loc"] if part != "FileSkill" and not str(part).startswith("literal[")]
    field = ".".join(path) or "recipe"
    if error["type"] == "extra_forbidden":
        choices = _fields_at(path[:-1])
        close = difflib.get_close_matches(path[-1], choices, n=1)
        hint = f", did you mean {close[0]!r}?" if close else ""
        return f"unknown key {field} = {error['input']!r}{hint} Choices: {', '.join(choices)}"
    if error["type"] == "missing":
        return f"{field} is required"
    return f"{field} = {error['input']!r}: {error['msg']}"


def _fields_at(path: Sequence[str]) -> list[str]:
    """The keys that the section at `path` knows."""
    section: type[BaseModel] = Recipe
    for part in path:
        if part.isdigit():
            continue
        found = section.model_fields.get(part)
        for kind in _models(found.annotation if found else None):
            section = kind
    return sorted(section.model_fields)


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models(argument)]
