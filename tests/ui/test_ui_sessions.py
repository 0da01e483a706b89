"""What streams ends when it is stopped or its page is left, also what starts just after that."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from ui.sessions import Sessions


async def endless() -> None:
    await asyncio.Event().wait()


async def shown(sessions: Sessions, session: str, part: str) -> bool:
    """Show an endless answer in a part, and return whether it was cancelled."""
    task = asyncio.create_task(endless())
    with sessions.running(session, part, task):
        await asyncio.wait({task})
        return task.cancelled()


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 30))


def test_stop_ends_the_parts_that_are_named_in_this_session_only() -> None:
    async def scenario() -> None:
        sessions = Sessions()
        left, right, other = (
            asyncio.create_task(shown(sessions, *place)) for place in (("a", "left"), ("a", "right"), ("b", "left"))
        )
        await asyncio.sleep(0)
        await sessions.stop("a", "left")
        assert left.done() and not right.done() and sessions.busy("a") and not sessions.busy("a", "left")
        await sessions.stop("a")
        assert right.done() and not other.done() and sessions.busy("b")
        await sessions.stop("b")

    run(scenario())


def test_what_the_last_click_starts_after_the_page_was_left_ends_at_once() -> None:
    async def scenario() -> None:
        sessions = Sessions()
        before = asyncio.create_task(shown(sessions, "a", "left"))
        other = asyncio.create_task(shown(sessions, "b", "left"))
        await asyncio.sleep(0)
        await sessions.leave("a")
        assert before.done() and await shown(sessions, "a", "right")
        assert not other.done()
        await sessions.stop("b")

    run(scenario())


def test_a_page_that_was_only_cut_off_can_be_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ui.sessions.LAST_CLICKS_S", 0.0)

    async def scenario() -> None:
        sessions = Sessions()
        await sessions.leave("a")
        again = asyncio.create_task(shown(sessions, "a", "left"))
        await asyncio.sleep(0.01)
        assert not again.done()
        await sessions.stop("a")

    run(scenario())
