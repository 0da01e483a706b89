"""Which answers are streaming in which browser session, so that Stop, Clear or leaving the page ends them.

Knows asyncio tasks, not what they do. What was stopped is quiet when `stop` returns: every part has stored its
history, so a new prompt can be taken without a race.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

QUIET_TIMEOUT_S = 5.0
LAST_CLICKS_S = 10.0  # after a page was left, what was clicked on it last may still arrive


class _Running:
    def __init__(self, task: asyncio.Task[None]) -> None:
        self.task = task
        self.quiet = asyncio.Event()


class Sessions:
    """The streams that run now, by session and by the part of the page that shows them."""

    def __init__(self) -> None:
        """Start with none."""
        self._running: dict[tuple[str, str], _Running] = {}
        self._left: dict[str, float] = {}

    @contextmanager
    def running(self, session: str, part: str, task: asyncio.Task[None]) -> Iterator[None]:
        """Count `task` as running while the caller shows what it brings; cancel it if nobody is there to see it."""
        place, mine = (session, part), _Running(task)
        self._running[place] = mine
        if time.monotonic() < self._left.get(session, 0.0):
            task.cancel()
        try:
            yield
        finally:
            task.cancel()
            mine.quiet.set()
            if self._running.get(place) is mine:
                del self._running[place]

    def busy(self, session: str, *parts: str) -> bool:
        """Whether anything still streams in one of the parts, or in any if none is named."""
        return bool(self._places(session, parts))

    async def stop(self, session: str, *parts: str) -> None:
        """Cancel what streams in the parts, or in all if none is named, and wait until it has been written down."""
        running = [self._running[place] for place in self._places(session, parts)]
        for one in running:
            one.task.cancel()
        for one in running:
            try:
                await asyncio.wait_for(one.quiet.wait(), QUIET_TIMEOUT_S)
            except TimeoutError:  # the page is gone: nobody draws the rest
                self._forget(one)

    async def leave(self, session: str) -> None:
        """Stop all that streams, and all that the page's last clicks still start: nobody is there any more."""
        now = time.monotonic()
        self._left = {other: until for other, until in self._left.items() if until > now}
        self._left[session] = now + LAST_CLICKS_S
        await self.stop(session)

    def _places(self, session: str, parts: tuple[str, ...]) -> list[tuple[str, str]]:
        return [place for place in self._running if place[0] == session and (not parts or place[1] in parts)]

    def _forget(self, gone: _Running) -> None:
        self._running = {place: one for place, one in self._running.items() if one is not gone}
