"""The page at both widths, light and dark: it fits, has no serious accessibility finding, and works by keyboard.

The screenshots lie in build/screenshots, to be looked at.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.browser import chromium, open_page, screenshot
from tests.ui.browsing import answered, choose, has, ready, tab, text
from tests.ui.fake_server import FakeServer
from tests.ui.page_server import serve_app

__all__ = ["chromium"]
GRAVE = ("serious", "critical")


@pytest.fixture(scope="module")
def guarded_url() -> Iterator[str]:
    from ui.app import create_app
    from ui.login import Password
    from ui.settings import Settings

    with serve_app(create_app(Settings(), Password("pa55word"))) as url:
        yield url


def look(page: Any, name: str, width: int) -> None:
    """Take a picture, and check what every tab must keep to."""
    page.mouse.move(0, 0)
    page.wait_for_timeout(300)  # for transitions to end
    screenshot(page, name)
    assert page.evaluate("document.documentElement.scrollWidth") <= width, name
    found = Axe().run(page).response["violations"]
    grave = {v["id"]: [n["html"][:200] for n in v["nodes"]] for v in found if v["impact"] in GRAVE}
    assert grave == {}, name


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [400, 1600])
def test_every_tab(chromium: Any, page_url: str, fake: FakeServer, width: int, dark: bool) -> None:
    shade = "dark" if dark else "light"
    fake.plan("demo:base", pieces=["the quick brown fox ", "jumps over a lazy dog ", "a-very-long-word-" * 20])
    fake.plan("demo@0.75", pieces=["the quick red fox ", "jumped over one lazy dog, indeed"])
    fake.default.pieces = ["an answer at another point of the dial"]
    fake.replies = {"R one=": "eno", "R two=": "owt", "U one=": "ONE", "A 1+1=": "2", "F one=": "+-1"}
    with open_page(chromium, page_url, width=width, height=850 if width == 400 else 1000, dark=dark) as page:
        ready(page)
        page.wait_for_selector("button.example:visible")
        look(page, f"empty-{width}-{shade}", width)
        page.get_by_label("Show differences").check()
        page.click("button.example:has-text('F lake=')")
        answered(page, "left")
        answered(page, "right")
        page.wait_for_selector("#difference ins")
        look(page, f"compare-{width}-{shade}", width)
        choose(page, "left", "Other")
        page.wait_for_selector("#left-url")
        page.click("#right-sampling button")
        page.click("#export > button")
        page.get_by_label("Separate prompts").check()
        page.wait_for_selector("#left-prompt")
        look(page, f"options-{width}-{shade}", width)
        tab(page, "Sweep")
        page.fill("#sweep-prompt textarea", "What is a fox?")
        page.click("#sweep-start")
        page.wait_for_function("document.querySelectorAll('#sweep-table tr[data-state=done]').length === 5")
        look(page, f"sweep-{width}-{shade}", width)
        tab(page, "Skills")
        page.click("#skills-start")
        has(page, "skills-note", "11 of 11")
        look(page, f"skills-{width}-{shade}", width)
        tab(page, "Report")
        page.wait_for_selector("#plot-alignment svg path")
        look(page, f"report-{width}-{shade}", width)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [400, 1600])
def test_the_login(chromium: Any, guarded_url: str, width: int, dark: bool) -> None:
    shade = "dark" if dark else "light"
    with open_page(chromium, guarded_url, width=width, height=850 if width == 400 else 1000, dark=dark) as page:
        page.wait_for_selector("#secret:focus")
        look(page, f"login-{width}-{shade}", width)
        page.keyboard.type("guess")
        page.keyboard.press("Enter")
        page.wait_for_selector("[role=alert]")
        look(page, f"login-refused-{width}-{shade}", width)


def test_by_keyboard_alone(chromium: Any, page_url: str, fake: FakeServer) -> None:
    with open_page(chromium, page_url) as page:
        ready(page)
        page.keyboard.press("Tab")
        page.focus("#right-scale input[type=range]")
        page.keyboard.press("ArrowRight")
        has(page, "right-title", "demo@0.8")
        page.focus("#left-source input[value=dial]")
        page.keyboard.press("Space")
        has(page, "left-title", "demo@0.75")
        page.focus("#prompt textarea")
        page.keyboard.type("Line one")
        page.keyboard.press("Shift+Enter")
        page.keyboard.type("Line two")
        page.keyboard.press("Enter")
        answered(page, "left")
        answered(page, "right")
        page.wait_for_selector("#stop[disabled]")
        order = []
        for _ in range(12):
            page.keyboard.press("Tab")
            order.append(page.evaluate("document.activeElement.innerText || document.activeElement.tagName"))
        assert order[:2] == ["Send", "Clear"]  # Stop has nothing to stop, and is passed over
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid"
        page.focus("#left-again")
        page.keyboard.press("Enter")
        page.wait_for_function("n => document.querySelectorAll('#left-log .turn').length === n", arg=1)
        answered(page, "left")
        assert page.locator("#left-log .log").get_attribute("tabindex") == "0"
        assert "Line one\nLine two" in text(page, "left-log")
    assert fake.requests[0]["messages"][0]["content"] == "Line one\nLine two"
