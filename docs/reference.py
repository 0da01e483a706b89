"""Writes docs/api.md from the OpenAPI document of a server that asks for keys: `python -m docs.reference`.

Routes, keys, statuses, fields and types come from the document, explanations and examples from `api.md.j2`. The
document is built as `cllm serve` builds it, but without an engine; a test compares the page with a running server's.
"""

from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

PAGE = Path(__file__).with_name("api.md")
TEMPLATE = "api.md.j2"
MODEL = Path(__file__).parents[1] / "demo" / "model"
Schema = dict[str, Any]


def served_document() -> Schema:
    """Return what a server with keys serves at `/openapi.json`."""
    from serve import launch, preflight
    from serve.keys import read_keys
    from serve.service import Service
    from serve.settings import Settings

    settings = Settings(MODEL)
    args = launch.prepare(settings, [])
    args.service = Service(settings, preflight.check_model(settings), read_keys("any", None))
    from vllm.entrypoints.launchers.app import build_app

    return build_app(args, ("generate",)).openapi()


def page(document: Schema) -> str:
    """Return the page for a document."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    operations = sorted(_operations(document), key=lambda one: (not one["path"].startswith("/v1"), one["path"]))
    schemas = document["components"]["schemas"]
    everywhere = set.intersection(*(set(operation["statuses"]) for operation in operations))
    return environment.get_template(TEMPLATE).render(
        version=document["info"]["version"],
        operations=operations,
        everywhere=sorted(everywhere),
        statuses=sorted(set().union(*(operation["statuses"] for operation in operations))),
        phrase=lambda status: HTTPStatus(int(status)).phrase,
        fields=lambda name: _fields(schemas[name]),
    )


def kind(schema: Schema) -> str:
    """Return the type of a JSON schema in words."""
    if "anyOf" in schema:
        kinds = dict.fromkeys(map(kind, schema["anyOf"]))  # each once, in order
        return " or ".join(sorted(kinds, key="null".__eq__))
    if "$ref" in schema:
        return "object"
    if "const" in schema:
        return f'"{schema["const"]}"'
    if "enum" in schema:
        return " or ".join(f'"{value}"' for value in schema["enum"])
    if schema.get("type") == "array":
        items = kind(schema["items"])
        noun, blank, rest = items.partition(" ")
        return "list" if " or " in items else f"list of {noun}s{blank}{rest}"
    if schema.get("type") == "number" and "maximum" in schema:
        return f"number from {schema['minimum']:g} to {schema['maximum']:g}"
    return schema.get("type", "anything")


def _operations(document: Schema) -> Iterator[Schema]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            purpose = operation.get("description", operation["summary"])
            yield {
                "method": method.upper(),
                "path": path,
                "needs_key": "security" in operation,
                "statuses": sorted(operation["responses"]),
                "purpose": purpose.split(". ")[0].rstrip(".") + ".",
            }


def _fields(schema: Schema) -> dict[str, Schema]:
    required = schema.get("required", [])
    return {
        name: {"kind": kind(field), "is_required": name in required, "meaning": field.get("description", "")}
        for name, field in schema["properties"].items()
    }


if __name__ == "__main__":
    PAGE.write_text(page(served_document()))
