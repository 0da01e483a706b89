"""When to draw what streams: at once while it is short, more rarely when drawing costs the browser more."""

import asyncio
from collections.abc import AsyncIterator, Callable

REDRAW_S, REDRAW_LONG_S = 0.03, 0.15
LONG = 2000  # characters


async def redraws(
    task: asyncio.Task[None], revision: Callable[[], int], size: Callable[[], int]
) -> AsyncIterator[None]:
    """Yield whenever there is something new to draw, until the task has ended; the end is the caller's to draw.

    Args:
        task: What streams.
        revision: Rises with everything new.
        size: Characters that a drawing sends to the browser.
    """
    drawn = -1
    while not task.done():
        if drawn != revision():
            drawn = revision()
            yield
        await asyncio.wait({task}, timeout=REDRAW_S if size() < LONG else REDRAW_LONG_S)
