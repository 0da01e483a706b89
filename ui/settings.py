"""What the page can be told: the one place where a default of `cllm ui` is written.

Knows nothing of Gradio or HTTP. Secrets come from the environment only, and are left out of `repr` so that no log
can carry them.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from ui.servers import NO_KEY, AllowList, clean_url, is_loopback

API_KEY_VARIABLE = "CLLM_API_KEY"
PASSWORD_VARIABLE = "CLLM_UI_PASSWORD"
TEMPERATURE_VARIABLE = "CLLM_UI_TEMPERATURE"
MAX_TOKENS_VARIABLE = "CLLM_UI_MAX_TOKENS"
ALLOW_URL_VARIABLE = "CLLM_UI_ALLOW_URL"
SKILLS_VARIABLE = "CLLM_UI_SKILLS"
VOTES_VARIABLE = "CLLM_UI_VOTES"


Number = TypeVar("Number", int, float)


def _api_key() -> str:
    return os.environ.get(API_KEY_VARIABLE) or NO_KEY


def _password() -> str | None:
    return os.environ.get(PASSWORD_VARIABLE) or None


@dataclass(frozen=True)
class Settings:
    """Where the server is, where the page listens, how answers are sampled.

    Args:
        api_url: OpenAI-compatible address of the server; `/v1` is added where it has no path.
        host: Address that the page listens on.
        port: TCP port that the page listens on.
        temperature: Sampling temperature that the page begins with.
        max_tokens: Longest answer that the page begins with, in tokens.
        allow_urls: Other servers that a side may ask; if none is named, a page on the loopback may ask any.
        skills: JSONL file of held-out prompts, see `ui.skills`; None for those of the server's report.
        votes: File that votes are written to; None for a page without votes.
        api_key: Key for the server at `api_url`.
        password: What opens the page; None for a page that is open.

    Raises:
        ValueError: A value is not allowed.
    """

    api_url: str = "http://127.0.0.1:8000/v1"
    host: str = "127.0.0.1"
    port: int = 7860
    temperature: float = 0.0
    max_tokens: int = 1024
    allow_urls: tuple[str, ...] = ()
    skills: Path | None = None
    votes: Path | None = None
    api_key: str = field(default_factory=_api_key, repr=False)
    password: str | None = field(default_factory=_password, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "api_url", clean_url(self.api_url, "api_url"))
        object.__setattr__(self, "allow_urls", tuple(clean_url(url, "allow_url") for url in self.allow_urls))
        if not 0 <= self.temperature <= 2:
            raise ValueError(f"temperature: {self.temperature} is out of range; allowed: 0 to 2")
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens: {self.max_tokens} is out of range; allowed: 1 or more")
        if self.skills is not None and not self.skills.is_file():
            raise ValueError(f"skills: {str(self.skills)!r} is not a file")
        if self.votes is not None and not self.votes.parent.is_dir():
            raise ValueError(f"votes: {str(self.votes.parent)!r} is not a directory")

    @property
    def allow_list(self) -> AllowList:
        """The servers that a side may ask: those that were named; where none was, a page on the loopback asks any."""
        return AllowList((self.api_url, *self.allow_urls), everything=is_loopback(self.host) and not self.allow_urls)


def mounted_settings(base_url: str) -> Settings:
    """Return the settings of a page that the server at `base_url` mounts: the environment's, without its secrets.

    The page listens where the server does, and every visitor brings a key of their own.

    Raises:
        ValueError: A variable holds a value that is not allowed.
    """
    host = urlsplit(clean_url(base_url, "base_url")).hostname
    urls = os.environ.get(ALLOW_URL_VARIABLE, "").split()
    files = [os.environ.get(name) for name in (SKILLS_VARIABLE, VOTES_VARIABLE)]
    skills, votes = (Path(file) if file else None for file in files)
    return Settings(
        api_url=base_url,
        host=host or Settings.host,
        temperature=_number(TEMPERATURE_VARIABLE, float, Settings.temperature),
        max_tokens=_number(MAX_TOKENS_VARIABLE, int, Settings.max_tokens),
        allow_urls=tuple(urls),
        skills=skills,
        votes=votes,
        api_key=NO_KEY,
        password=None,
    )


def _number(variable: str, kind: Callable[[str], Number], default: Number) -> Number:
    text = os.environ.get(variable)
    try:
        return kind(text) if text else default
    except ValueError as error:
        raise ValueError(f"{variable}: {text!r} is not a number") from error
