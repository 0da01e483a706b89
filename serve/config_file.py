"""The server's options from a file, YAML or TOML: the names of `Settings`, and vLLM's options in a table `engine`."""

import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from serve.settings import Settings

ENGINE = "engine"


def read_config_file(file: Path) -> dict[str, Any]:
    """Return a file's values by option; those of `engine` as a command line for vLLM's parser.

    Raises:
        ValueError: The file cannot be read, or names an option that does not exist.
    """
    values = _parse(file)
    allowed = sorted({field.name for field in fields(Settings)} | {ENGINE})
    if unknown := sorted(set(values) - set(allowed)):
        raise ValueError(f"config: {file}: {unknown[0]!r} is not an option; allowed: {', '.join(allowed)}")
    engine = values.get(ENGINE) or {}
    if not isinstance(engine, Mapping):
        raise ValueError(f"config: {file}: {ENGINE} must be a table of vLLM's options, not {engine!r}")
    return values | {ENGINE: [word for name, value in engine.items() for word in _words(name, value)]}


def _parse(file: Path) -> dict[str, Any]:
    import yaml

    parsers: dict[str, Callable[[str], Any]] = {".toml": tomllib.loads, ".yaml": yaml.safe_load, ".yml": yaml.safe_load}
    if file.suffix not in parsers:
        raise ValueError(f"config: {str(file)!r} must end in one of {', '.join(parsers)}")
    try:
        values = parsers[file.suffix](file.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"config: {file} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"config: {file} must hold a table of options")
    return values


def _words(name: str, value: object) -> list[str]:
    option = "--" + name.replace("_", "-")
    if isinstance(value, bool):
        return [option if value else option.replace("--", "--no-", 1)]
    return [option, *map(_word, value)] if isinstance(value, list) else [option, _word(value)]


def _word(value: object) -> str:
    return json.dumps(value) if isinstance(value, Mapping) else str(value)  # vLLM's parser reads tables as JSON
