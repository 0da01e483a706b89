"""What a reader does on the page, and sees."""

import json
from typing import Any

SLOW = [f"s{i} " for i in range(400)]


def text(page: Any, element: str) -> str:
    return page.locator(f"#{element}").inner_text()


def has(page: Any, element: str, wanted: str) -> None:
    """Wait until an element's text holds this."""
    page.wait_for_function(
        "([id, text]) => document.getElementById(id)?.innerText.includes(text)",
        arg=[element, wanted],
    )


def ready(page: Any) -> None:
    page.wait_for_selector("#left-title code")


def send(page: Any, prompt: str) -> None:
    ready(page)
    page.fill("#prompt textarea", prompt)
    page.click("#send")


def answered(page: Any, side: str, number: int = 1) -> None:
    """Wait until a side has so many turns, none of which goes on."""
    page.wait_for_function(
        """([side, number]) => {
          const turns = [...document.querySelectorAll(`#${side}-log .turn`)];
          return turns.length === number && turns.every(turn => !['waiting', 'streaming'].includes(turn.dataset.state));
        }""",
        arg=[side, number],
    )


def answers(page: Any, side: str) -> list[str]:
    return page.locator(f"#{side}-log .said.bot").evaluate_all("all => all.map(one => one.textContent)")


def prompts(page: Any, side: str) -> list[str]:
    return page.locator(f"#{side}-log .said.user").evaluate_all("all => all.map(one => one.textContent)")


def tab(page: Any, name: str) -> None:
    page.click(f"button[role=tab]:has-text('{name}')")


def choose(page: Any, side: str, source: str) -> None:
    page.click(f"#{side}-source label:has-text('{source}')")


def set_scale(page: Any, side: str, scale: float) -> None:
    page.fill(f"#{side}-scale input[type=number]", str(scale))
    page.keyboard.press("Tab")


def kept(page: Any) -> str:
    """What the browser holds of the page, as it is stored."""
    return page.evaluate("JSON.stringify(localStorage)")


def wait_kept(page: Any, before: str) -> None:
    """Wait until the browser holds something else than before."""
    page.wait_for_function("before => JSON.stringify(localStorage) !== before", arg=before)


def downloaded(page: Any, button: str) -> tuple[str, str]:
    """Press a button, and return the name and the text of the file that it saves."""
    with page.expect_download() as download:
        page.click(f"#{button}")
    return download.value.suggested_filename, download.value.path().read_text(encoding="utf-8")


def lines(jsonl: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in jsonl.splitlines()]
