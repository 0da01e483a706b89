"""What a browser keeps of a page over a reload: choices and conversations, never a key. Knows no Gradio.

It comes back from the browser's own storage, so it is checked like any input, and left out where it does not fit.
"""

import logging
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from ui.answer import Sampling, Turn

logger = logging.getLogger(__name__)

Source = Literal["base", "dial", "other"]
MOST_CHARACTERS = 400_000  # a browser keeps 5 MB for a whole site, and sends this back in one request


class SavedSide(BaseModel):
    """One side: who answers, how, and what was said."""

    source: Source
    scale: float | None = None
    url: str = ""
    model: str = ""
    sampling: Sampling = Sampling()
    turns: list[Turn] = []


class Saved(BaseModel):
    """The whole page."""

    version: Literal[1] = 1
    left: SavedSide
    right: SavedSide
    remember: bool = True
    markdown: bool = False
    separate: bool = False
    differences: bool = False

    def fitted(self) -> "Saved":
        """The same without its oldest turns, as far as the browser has no room for them."""
        kept = self.model_copy(deep=True)
        while len(kept.model_dump_json()) > MOST_CHARACTERS:
            longest = max(kept.left, kept.right, key=lambda side: sum(len(t.prompt) + len(t.text) for t in side.turns))
            if not longest.turns:
                break
            longest.turns = longest.turns[1:]
        return kept


def read_saved(data: Any) -> Saved | None:
    """Return what was kept; None if it is nothing, or of another version of the page."""
    if not data:
        return None
    try:
        return Saved.model_validate(data)
    except ValidationError as error:
        logger.info("what the browser kept does not fit and is left out: %d problems", error.error_count())
        return None
