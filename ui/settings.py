"""What the page can be told: the one place where a default of `cllm ui` is written.

Knows nothing of Gradio or HTTP. The API key comes from the environment only, and is left out of `repr` so
that no log can carry it.
"""

import os
from dataclasses import dataclass, field
from urllib.parse import urlsplit

API_KEY_VARIABLE = "CLLM_API_KEY"


def api_key_from_environment() -> str:
    """The key sent to the server; servers that guard nothing ignore the stand-in."""
    return os.environ.get(API_KEY_VARIABLE) or "none"


@dataclass(frozen=True)
class Settings:
    """Where the server is, where the page listens, how answers are sampled."""

    api_url: str = "http://127.0.0.1:8000/v1"
    host: str = "127.0.0.1"
    port: int = 7860
    temperature: float = 0.0
    max_tokens: int = 1024  # for models with room for it; short contexts end answers by themselves
    api_key: str = field(default_factory=api_key_from_environment, repr=False)

    def __post_init__(self) -> None:
        """Refuse an address that no request can be sent to."""
        parts = urlsplit(self.api_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"api_url {self.api_url!r} is not an http:// or https:// address")
        if parts.username or parts.password:
            raise ValueError(f"api_url must not hold a password; set {API_KEY_VARIABLE} instead")
        object.__setattr__(self, "api_url", self.api_url.rstrip("/") + ("" if parts.path.strip("/") else "/v1"))

    @property
    def server_root(self) -> str:
        """The address without its `/v1`, under which `/ready` lies."""
        return self.api_url.removesuffix("/v1")

    @property
    def api_is_local(self) -> bool:
        """Loopback servers are never asked through a proxy."""
        return urlsplit(self.api_url).hostname in ("127.0.0.1", "localhost", "::1")
