"""Where two recipes differ."""

from typing import Any

MISSING = "–"


def differences(a: dict[str, Any], b: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Dotted field -> its value in either recipe, where they differ; sections are gone into, lists are not."""
    first, second = dict(_fields(a)), dict(_fields(b))
    return {
        field: (first.get(field, MISSING), second.get(field, MISSING))
        for field in sorted(first.keys() | second.keys())
        if first.get(field, MISSING) != second.get(field, MISSING)
    }


def _fields(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    found = []
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            found += _fields(value, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", "null" if value is None else str(value)))
    return found
