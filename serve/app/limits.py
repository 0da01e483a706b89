"""Limits on what one request may ask for, checked once its body is parsed. What vLLM limits itself is left to it.

Constraints on the output are compiled by vLLM in the process that answers all requests, and again in the engine, so
those that would take long are refused by their look. The numbers were measured with vLLM 0.32 and xgrammar 0.2.8, which
fails on counts above 128, and takes seconds where counted parts are many or nested.
"""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from pydantic import BaseModel
from vllm.exceptions import VLLMValidationError

from serve.app.requests import ControlChatRequest, ControlRequest
from serve.settings import Settings

MAX_REPEAT = 128
MAX_EXPANSION = 2000
_COUNT = re.compile(r"\{(\d+)(?:,(\d*))?\}")
_CLASS = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)


def check_limits(request: ControlRequest, settings: Settings) -> None:
    """Check a request against the server's limits.

    Raises:
        VLLMValidationError: Names the field, its value and what is allowed.
    """
    _check_finite(request)
    _check_at_most("n", request.n or 1, settings.max_n)
    if settings.max_tokens is not None:
        for name in ("max_tokens", "max_completion_tokens"):
            _check_at_most(name, getattr(request, name, None) or 0, settings.max_tokens)
    stops = [request.stop] if isinstance(request.stop, str) else request.stop or []
    _check_at_most("stop", max(map(len, stops), default=0), settings.max_stop_length, "characters")
    for name, constraint in _constraints(request):
        _check_at_most(name, _size(name, constraint), settings.max_grammar_bytes, "bytes")
        for pattern in _patterns(constraint):
            _check_at_most(name, len(pattern), settings.max_pattern_length, "characters in a pattern")
            _check_pattern(name, pattern)


def expansion(pattern: str) -> tuple[int, int]:
    """Return the size of a regular expression with all counted repetitions written out, and its largest count."""
    sizes, last, largest, i = [0], 0, 0, 0
    while i < len(pattern):
        if pattern[i] == "(":
            sizes.append(0)
            i += 1
        elif pattern[i] == ")" and len(sizes) > 1:
            last = sizes.pop()
            sizes[-1] += last
            i += 1
        elif count := _COUNT.match(pattern, i):
            times = int(count[2] or count[1])
            largest = max(largest, times)
            sizes[-1] += last * (times - 1)
            last *= times
            i = count.end()
        else:
            last = 1
            sizes[-1] += last
            character_class = _CLASS.match(pattern, i)
            i = character_class.end() if character_class else i + (2 if pattern[i] == "\\" else 1)
    return sum(sizes), largest


def _check_finite(request: ControlRequest) -> None:
    """Refuse NaN and Infinity, which Python's JSON parser lets through and vLLM does not look for everywhere."""
    numbers = [(name, getattr(request, name)) for name in request.model_fields_set]
    numbers += [("logit_bias", bias) for bias in (request.logit_bias or {}).values()]
    for name, number in numbers:
        if isinstance(number, float) and not math.isfinite(number):
            raise VLLMValidationError(f"{name}: {number} is not a finite number.", parameter=name)


def _check_pattern(name: str, pattern: str) -> None:
    size, largest = expansion(pattern)
    _check_at_most(name, largest, MAX_REPEAT, "repetitions in a pattern")
    _check_at_most(name, size, MAX_EXPANSION, "characters in a pattern with its repetitions written out")


def _check_at_most(name: str, value: int, allowed: int, unit: str = "") -> None:
    if value > allowed:
        message = f"{name}: {value} {unit}".rstrip()
        raise VLLMValidationError(f"{message} is more than this server allows: {allowed}.", parameter=name)


def _constraints(request: ControlRequest) -> Iterator[tuple[str, Any]]:
    if request.response_format is not None:
        yield "response_format", _dumped("response_format", request.response_format)
    if request.structured_outputs is not None:
        yield "structured_outputs", asdict(request.structured_outputs)
    if isinstance(request, ControlChatRequest) and request.tool_choice != "none":
        yield from (("tools", _dumped("tools", tool)) for tool in request.tools or ())


def _size(name: str, constraint: Any) -> int:
    try:
        return len(json.dumps(constraint))
    except RecursionError as error:
        raise VLLMValidationError(f"{name}: nested too deeply.", parameter=name) from error


def _dumped(name: str, value: BaseModel) -> Any:
    try:
        return value.model_dump(by_alias=True)
    except ValueError as error:
        raise VLLMValidationError(f"{name}: nested too deeply.", parameter=name) from error


def _patterns(constraint: Any) -> Iterator[str]:
    """Yield the regular expressions of a constraint, also those in a schema that is given as a string."""
    pending = [constraint]
    while pending:
        value = pending.pop()
        if isinstance(value, list):
            pending += value
        elif isinstance(value, dict):
            for key, inner in value.items():
                if key in ("pattern", "regex") and isinstance(inner, str):
                    yield inner
                elif key == "patternProperties" and isinstance(inner, dict):
                    yield from inner
                pending.append(_parsed(inner) if key in ("json", "structural_tag") else inner)


def _parsed(value: Any) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return None  # vLLM says what is wrong with it
