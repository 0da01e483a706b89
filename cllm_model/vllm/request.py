"""How a control scale travels with a request, and which KV cache it may share: the one place for both.

The scale rides in `SamplingParams.extra_args`, which HTTP clients can reach. So whoever starts an engine that trusts
scales (`cllm_model.vllm.dial`) writes one into every request, over what a client may have sent.
A KV block computed at one scale is wrong at every other, so the salt of vLLM's prefix cache is made from the scale.
Pure functions; knows neither vLLM nor the server.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from cllm_model.scale import RESOLUTION

SCALE_KEY = "control_scale"
"""Name in `extra_args` that belongs to this runtime; a client that sends it is refused."""


def cache_salt(scale: float, client_salt: str | None = None) -> str:
    """Return the salt under which a request may share KV blocks: no two pairs (scale, client's salt) have the same.

    It keeps what vLLM asks of a salt: at most 128 characters, and none of ``@``, ``/``, a backslash and NUL.

    Args:
        scale: A control scale as `cllm_model.scale.check_scale` returns it.
        client_salt: What the client asked to keep apart; None and "" are the same.
    """
    digest = hashlib.sha256((client_salt or "").encode()).hexdigest()
    return f"cllm-{round(scale / RESOLUTION)}-{digest}"


def with_scale(extra_args: Mapping[str, Any] | None, scale: float) -> dict[str, Any]:
    """Return `extra_args` with a scale, in place of one that they may hold."""
    return {**(extra_args or {}), SCALE_KEY: scale}


def asked_scale(extra_args: Mapping[str, Any] | None) -> float | None:
    """Return the scale that a request carries, None if it carries none."""
    return (extra_args or {}).get(SCALE_KEY)


def salted(prompt: Mapping[str, Any], scale: float) -> dict[str, Any]:
    """Return a rendered prompt with the salt under which a request of this scale may share KV blocks."""
    return {**prompt, "cache_salt": cache_salt(scale, prompt.get("cache_salt"))}
