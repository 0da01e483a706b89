"""Which answers are streaming in which browser session, so that Stop, Clear or leaving the page ends them.

Knows asyncio tasks, not what they do. A stopped session is quiet when `stop` returns: every pane has stored
its history, so a new prompt can be taken without a race.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

QUIET_TIMEOUT_S = 5.0


@dataclass
class _Session:
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    quiet: asyncio.Event = field(default_factory=asyncio.Event)


class Sessions:
    """The streams that run now, by session."""

    def __init__(self) -> None:
        """Start with none."""
        self._sessions: defaultdict[str, _Session] = defaultdict(_Session)

    @contextmanager
    def running(self, session_id: str, task: asyncio.Task[None]) -> Iterator[None]:
        """Count `task` as running while the caller shows what it brings."""
        session = self._sessions[session_id]
        session.tasks.add(task)
        session.quiet.clear()
        try:
            yield
        finally:
            task.cancel()
            session.tasks.discard(task)
            if not session.tasks:
                session.quiet.set()
                self._sessions.pop(session_id, None)

    def busy(self, session_id: str) -> bool:
        """Whether anything still streams."""
        return session_id in self._sessions

    async def stop(self, session_id: str) -> None:
        """Cancel what streams and wait until its panes have written it down."""
        if not self.busy(session_id):
            return
        session = self._sessions[session_id]
        for task in session.tasks:
            task.cancel()
        try:
            await asyncio.wait_for(session.quiet.wait(), QUIET_TIMEOUT_S)
        except TimeoutError:  # the page is gone: nobody draws the rest
            self._sessions.pop(session_id, None)
