"""API keys: read once, kept as hashes only, compared in constant time."""

import hashlib
import hmac
import re
from dataclasses import dataclass, field
from pathlib import Path

VARIABLE = "CLLM_API_KEYS"
_HASHED = "sha256:"
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ApiKeys:
    """The keys of a server; without any, it asks for none.

    Args:
        digests: SHA-256 of each key.
    """

    digests: tuple[bytes, ...] = field(default=(), repr=False)

    def __bool__(self) -> bool:
        return bool(self.digests)

    def allow(self, authorization: str | None) -> bool:
        """Whether the header `Authorization` carries one of the keys as a bearer token."""
        scheme, _, key = (authorization or "").partition(" ")
        presented = _digest(key)
        # All of them every time: how long it takes says nothing about which key was nearly right.
        matches = [hmac.compare_digest(presented, digest) for digest in self.digests]
        return any(matches) and scheme.lower() == "bearer"


def read_keys(listed: str | None, file: Path | None) -> ApiKeys:
    """Return the keys of the environment and of a file.

    Args:
        listed: Comma-separated keys; None if the variable is not set.
        file: One key a line, plain or as `sha256:<hex>`; empty lines and lines that begin with # are skipped.

    Raises:
        ValueError: A source holds no key, or one that cannot be sent; the message never shows a key.
    """
    digests: list[bytes] = []
    if listed is not None:
        digests += _digests(VARIABLE, listed.split(","))
    if file is not None:
        try:
            lines = file.read_text().splitlines()
        except (OSError, ValueError) as error:
            raise ValueError(f"api_key_file: {str(file)!r} cannot be read: {error}") from error
        digests += _digests(f"api_key_file: {file}", [line for line in lines if not line.startswith("#")])
    return ApiKeys(tuple(dict.fromkeys(digests)))


def _digests(source: str, keys: list[str]) -> list[bytes]:
    stripped = [key.strip() for key in keys]
    digests = [_parse(source, number, key) for number, key in enumerate(stripped, 1) if key]
    if not digests:
        raise ValueError(f"{source}: holds no key; leave it out to serve without keys")
    return digests


def _parse(source: str, number: int, key: str) -> bytes:
    if key.startswith(_HASHED):
        digest = key.removeprefix(_HASHED).lower()
        if _DIGEST.fullmatch(digest) is None:
            raise ValueError(f"{source}: key {number} must be {_HASHED} and 64 hex digits")
        return bytes.fromhex(digest)
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ValueError(f"{source}: key {number} must be of printable ASCII characters without spaces")
    return _digest(key)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
