"""What the server is busy with: how many generation requests run, and whether new ones are still let in."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_POLL_S = 0.05


class Traffic:
    """Counts the generation requests between their admission and the end of their answers."""

    def __init__(self) -> None:
        self.running = 0
        self._draining = threading.Event()

    @property
    def is_draining(self) -> bool:
        """Whether the server was asked to end: nothing new is let in."""
        return self._draining.is_set()

    @contextmanager
    def one(self) -> Iterator[None]:
        """Count one request, on the event loop's thread."""
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1

    def drain(self, seconds: float) -> int:
        """Let nothing new in and wait until nothing runs any more, or time is up; call it on another thread.

        Returns:
            Number of requests that still run.
        """
        self._draining.set()
        deadline = time.monotonic() + seconds
        time.sleep(_POLL_S)  # a request that was let in on the other thread just before is counted by then
        while self.running and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        return self.running
