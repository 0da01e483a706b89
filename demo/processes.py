"""Runs a few processes as one: all come up, or none stays; all end together when asked to.

Knows nothing of what the processes do beyond an address that answers 200 once each is ready. Every child gets a
session of its own, so that Ctrl-C reaches the parent alone and children are ended in order: SIGTERM, a deadline,
then SIGKILL for whatever is left of their process group.
"""

import contextlib
import http.client
import logging
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

logger = logging.getLogger(__name__)

PAUSE_S = 0.25
PROGRESS_S = 10.0  # between progress lines where there is no terminal to redraw one on
LAST_LINES = 20
Say = Callable[[str], None]


@dataclass
class Child:
    """A command, the address that tells when it is ready, and where its output goes."""

    name: str
    command: Sequence[str]
    ready_url: str
    log: Path | None = None  # None: the parent's own output
    env: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    ready: bool = False

    def start(self) -> None:
        """Start it in a session of its own."""
        output = self.log.open("wb") if self.log else None
        try:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT if output else None,
                env={**os.environ, **self.env},
                start_new_session=True,
            )
        finally:
            if output:
                output.close()

    @property
    def exit_code(self) -> int | None:
        """How it ended, or None while it runs or before it was started."""
        return self.process.poll() if self.process else None

    def becomes_ready(self) -> bool:
        """Ask once; remember a yes."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never through a proxy
        with contextlib.suppress(urllib.error.URLError, OSError, http.client.HTTPException):
            with opener.open(self.ready_url, timeout=2) as answer:
                self.ready = answer.status == 200
        return self.ready

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process, or SIGKILL to its whole group."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            if number == signal.SIGKILL:
                os.killpg(self.process.pid, number)
            elif self.exit_code is None:
                self.process.send_signal(number)

    def last_words(self) -> str:
        """The end of its log."""
        if self.log is None:
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-LAST_LINES:])


class _Asked:
    """Counts requests to end: the first is polite, the second is not."""

    times = 0

    def note(self, number: int, frame: FrameType | None) -> None:
        self.times += 1


def run_together(
    children: Sequence[Child],
    say: Say,
    announce: Callable[[], None],
    *,
    ready_timeout_s: float = 900.0,
    stop_timeout_s: float = 20.0,
) -> int:
    """Start all, call `announce` once all are ready, keep them until asked to end. Gives the exit code."""
    asked = _Asked()
    with _signals(asked):
        try:
            for child in children:
                child.start()
            return _watch(children, asked, say, announce, ready_timeout_s)
        finally:
            _stop(children, asked, stop_timeout_s)


def _watch(children: Sequence[Child], asked: _Asked, say: Say, announce: Callable[[], None], timeout_s: float) -> int:
    progress = _Progress()
    announced = False
    while not asked.times:
        for child in children:
            if child.exit_code is not None:
                progress.end()
                say(f"The {child.name} ended with exit code {child.exit_code}. Its last lines:")
                say(child.last_words())
                return 1
        waiting = [child for child in children if not (child.ready or child.becomes_ready())]
        if waiting and progress.seconds > timeout_s:
            progress.end()
            say(f"The {waiting[0].name} was not ready after {timeout_s:.0f} s. Its last lines:")
            say(waiting[0].last_words())
            return 1
        if waiting:
            progress.show(f"Loading the {' and the '.join(child.name for child in waiting)} …")
        elif not announced:
            progress.end()
            announce()
            announced = True
        time.sleep(PAUSE_S)
    progress.end()
    say("Stopping …")
    return 0


def _stop(children: Sequence[Child], asked: _Asked, timeout_s: float) -> None:
    begun, already_asked = time.monotonic(), asked.times
    for child in reversed(children):
        child.send(signal.SIGTERM)
    while any(child.process and child.exit_code is None for child in children):
        if time.monotonic() - begun > timeout_s or asked.times > already_asked:
            logger.warning("not everything ended by itself; killing what is left")
            break
        time.sleep(PAUSE_S / 5)
    for child in children:
        child.send(signal.SIGKILL)  # also what a child may have left behind
        if child.process:
            child.process.wait()


@contextlib.contextmanager
def _signals(asked: _Asked) -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, asked.note) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


class _Progress:
    """One line that counts seconds: redrawn on a terminal, repeated now and then elsewhere."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._shown_at = -PROGRESS_S
        self._drawn = False

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._begun

    def show(self, text: str) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[K{text} {self.seconds:.0f} s")
            self._drawn = True
        elif self.seconds - self._shown_at >= PROGRESS_S:
            sys.stderr.write(f"{text} {self.seconds:.0f} s\n")
            self._shown_at = self.seconds
        sys.stderr.flush()

    def end(self) -> None:
        if self._drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._drawn = False
