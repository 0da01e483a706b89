"""What schemathesis is told beyond the OpenAPI document, so that more than the parser of bodies is tested.

Its cases are one change to a body in which every field is set, so a field that is refused in itself would hide all
others. The examples say what such a field may be; the fields themselves are still changed in their turn.
"""

from typing import Any

import schemathesis
from schemathesis.core.failures import AcceptedNegativeData, Failure

_REFUSED_IF_EMPTY = ("allowed_token_ids", "structured_outputs", "tools", "truncate_prompt_tokens")
_LENGTH = "max_tokens"
_ONE = 1
_CHECKED_BY_VLLM = ("messages", "repetition_detection", "response_format", "tools")


@schemathesis.hook
def before_load_schema(context: schemathesis.HookContext, raw_schema: dict[str, Any]) -> None:
    """Complete the document's examples."""
    for schema in raw_schema["components"]["schemas"].values():
        for example in schema.get("examples", []):
            if isinstance(example, dict):
                example |= {field: None for field in _REFUSED_IF_EMPTY if field in schema["properties"]}
                example |= {_LENGTH: _ONE} if _LENGTH in example else {}


@schemathesis.hook.apply_to(path_regex="completions$")
def before_call(context: schemathesis.HookContext, case: schemathesis.Case, kwargs: dict[str, Any]) -> None:
    """Let no answer fill the context where a body leaves its length open."""
    if isinstance(case.body, dict) and case.body.get(_LENGTH) is None:
        case.body[_LENGTH] = _ONE


@schemathesis.hook
def filter_failure(
    context: schemathesis.HookContext, failure: Failure, case: schemathesis.Case, response: schemathesis.Response
) -> bool:
    """Let values inside of these fields be of other types than documented: their models are vLLM's, and convert."""
    inside = any(f"in body - {field} -> " in failure.message for field in _CHECKED_BY_VLLM)
    return not (isinstance(failure, AcceptedNegativeData) and inside)
