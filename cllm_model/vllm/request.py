"""How a control scale travels with a request, and which KV cache it may share: the one place for both.

The scale rides in `SamplingParams.extra_args`, together with a mark that only the process that started the engine
knows: `extra_args` can be reached by HTTP clients, the mark cannot be guessed, so an unmarked scale is never applied.
A KV block computed at one scale is wrong at every other, so the salt of vLLM's prefix cache is made from the scale.
Pure functions; knows neither vLLM nor the server.
"""

import hashlib
import os
import secrets
from collections.abc import Mapping
from typing import Any

from cllm_model.scale import RESOLUTION, TRAINED_SCALE

SCALE_KEY = "control_scale"
MARK_KEY = "control_mark"
RESERVED = frozenset({SCALE_KEY, MARK_KEY})
"""Names in `extra_args` that belong to this runtime; a client that sends one is refused."""

_MARK_VARIABLE = "CLLM_ENGINE_MARK"


def cache_salt(scale: float, client_salt: str | None = None) -> str:
    """Return the salt under which a request may share KV blocks: no two pairs (scale, client's salt) have the same.

    It keeps what vLLM asks of a salt: at most 128 characters, and none of ``@``, ``/``, a backslash and NUL.

    Args:
        scale: A control scale as `cllm_model.scale.check_scale` returns it.
        client_salt: What the client asked to keep apart; None and "" are the same.
    """
    digest = hashlib.sha256((client_salt or "").encode()).hexdigest()
    return f"cllm-{round(scale / RESOLUTION)}-{digest}"


def engine_mark() -> str:
    """Return this process's mark; processes started from now on inherit it, so call it before an engine starts."""
    return os.environ.setdefault(_MARK_VARIABLE, secrets.token_hex(16))


def mark(extra_args: Mapping[str, Any] | None, scale: float) -> dict[str, Any]:
    """Return `extra_args` with a scale that the engine will honour."""
    return {**(extra_args or {}), SCALE_KEY: scale, MARK_KEY: engine_mark()}


def asked_scale(extra_args: Mapping[str, Any] | None) -> float | None:
    """Return the scale that a request carries under our mark, None if it carries none; never raises."""
    own_mark = os.environ.get(_MARK_VARIABLE)
    if not extra_args or own_mark is None or extra_args.get(MARK_KEY) != own_mark:
        return None
    return extra_args[SCALE_KEY]


def marked_scale(extra_args: Mapping[str, Any] | None) -> float:
    """Return the scale that a request carries under our mark, else the trained one; never raises."""
    scale = asked_scale(extra_args)
    return TRAINED_SCALE if scale is None else scale


def salted(prompt: Mapping[str, Any], scale: float) -> dict[str, Any]:
    """Return a rendered prompt with the salt under which a request of this scale may share KV blocks."""
    return {**prompt, "cache_salt": cache_salt(scale, prompt.get("cache_salt"))}
