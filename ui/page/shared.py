"""What every part of the page needs: who may be asked with which key, the HTTP client, what streams now."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from ui.client import ChatClient
from ui.servers import AllowList, Server
from ui.sessions import Sessions
from ui.settings import Settings
from ui.skills import read_skills

QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}
"""How every event of the page is declared: no spinner over what streams, no public API, no waiting for others."""


@dataclass
class Shared:
    """One page's services.

    Args:
        settings: What the page was told.
        key_of: The API key of the visitor who made a request.
    """

    settings: Settings
    key_of: Callable[[gr.Request], str]
    client: ChatClient = field(default_factory=ChatClient)
    sessions: Sessions = field(default_factory=Sessions)

    def __post_init__(self) -> None:
        self.allow_list: AllowList = self.settings.allow_list
        self.skills = read_skills(self.settings.skills) if self.settings.skills else []

    def server(self, request: gr.Request) -> Server:
        """The page's own server, asked with the visitor's key."""
        return Server(self.settings.api_url, self.key_of(request))


def session_of(request: gr.Request) -> str:
    """The browser tab that made a request."""
    return request.session_hash or ""
