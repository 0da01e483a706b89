"""What goes wrong on one side stays on that side, under its own name; and nothing from outside runs on the page."""

from typing import Any

import pytest

from tests.browser import chromium, open_page, screenshot
from tests.ui.browsing import SLOW, answered, answers, has, ready, send, text
from tests.ui.fake_server import FakeServer
from tests.ui.page_server import serve_page

__all__ = ["chromium"]
LEFT, RIGHT = "demo:base", "demo@0.75"
EVIL = "<img src=x onerror=\"document.title='hacked'\"><script>document.title='hacked'</script> ${1+1} {{value}} **x**"


def test_sides_do_not_wait_for_each_other_and_never_swap_names(chromium: Any, page_url: str, fake: FakeServer) -> None:
    """One side streams slowly while the other fails in every way; each answer stands under its own model."""
    faults = {
        "dies": "The stream broke off after 6 tokens",
        "http_error": "HTTP 500: the prompt is too long",
        "wrong_model": "answered as “impostor”, but “demo@0.75” was asked for",
        "garbage": "something that is not a chat completion stream",
        "html": "The stream broke off after 0 tokens",
        "redirect": "redirects elsewhere, which is not followed",
    }
    slow = fake.plan(LEFT, pieces=SLOW[:30], hold_after=3)
    bad = fake.plan(RIGHT)
    with open_page(chromium, page_url) as page:
        send(page, "Hello")
        answered(page, "right")
        has(page, "left-log", "s2")
        for number, (fault, message) in enumerate(faults.items(), 2):
            bad.fault = fault  # type: ignore[assignment]
            page.click("#right-again") if number % 2 else send_to_right(page, f"Prompt {number}")
            has(page, "right-log", message)
            if fault == "wrong_model":
                assert "w0" not in answers(page, "right")
            assert page.locator("#left-log .turn").get_attribute("data-state") == "streaming"
            assert answers(page, "left") == ["s0 s1 s2 "] and "alert" not in page.inner_html("#left-log")
        screenshot(page, "one-side-failed-1600")
        slow.hold_after = None
        answered(page, "left")
        bad.fault = ""
        page.click("#right-again")
        page.wait_for_selector("#right-log .turn:last-child[data-state=done]")
        by_side = {side: set(page.locator(f"#{side}-log .by code").all_inner_texts()) for side in ("left", "right")}
        assert by_side == {"left": {LEFT}, "right": {RIGHT}}
        assert "cllm-0123456789ab-s0" in text(page, "left-log") and "s0.75" not in text(page, "left-log")


def send_to_right(page: Any, prompt: str) -> None:
    box = page.get_by_label("Separate prompts")
    box.check()
    page.fill("#right-prompt textarea", prompt)
    page.click("#right-send")


def test_prompts_and_answers_are_text(chromium: Any, page_url: str, fake: FakeServer) -> None:
    answer = f"  {EVIL}\n    def f():\n\treturn `1`\n\n# end [l](javascript:alert(1)) ![i](http://127.0.0.1:1/x.png)"
    fake.plan(LEFT, pieces=[answer])
    with open_page(chromium, page_url) as page:  # which fails if the page asks another host for anything
        send(page, EVIL)
        answered(page, "left")
        answered(page, "right")
        assert answers(page, "left") == [answer]
        assert page.locator("#left-log .said.user").evaluate("e => e.textContent") == EVIL
        page.get_by_label("Show differences").check()
        page.get_by_label("Render Markdown").check()
        page.wait_for_selector("#left-log .said.bot code")
        page.wait_for_selector("#difference .diff")
        assert "<script>" in text(page, "left-log") and "${1+1}" in text(page, "left-log")
        assert page.locator("#panes img, #panes script, #difference img").count() == 0
        assert page.title() == "Control LLM, side by side"


def test_a_prompt_of_100_kb(chromium: Any, page_url: str, fake: FakeServer) -> None:
    prompt = "\n".join(["a long line of a long prompt " * 350] * 10).strip()  # Playwright types many lines slowly
    assert len(prompt) > 100_000
    with open_page(chromium, page_url) as page:
        send(page, prompt)
        answered(page, "left")
        answered(page, "right")
        assert "more characters were sent" in text(page, "left-log")
        send(page, "And now?")
        answered(page, "left", 2)
    assert [r["messages"][0]["content"] == prompt for r in fake.asked(LEFT)] == [True, True]


def test_two_tabs_at_once(chromium: Any, page_url: str, fake: FakeServer) -> None:
    held = fake.plan(LEFT, pieces=SLOW[:10], hold_after=3)
    with open_page(chromium, page_url) as first:
        second = first.context.new_page()
        second.goto(page_url)
        send(first, "From the first")
        has(first, "left-log", "s2")
        send(second, "From the second")
        has(second, "left-log", "s2")
        first.click("#left-stop")
        answered(first, "left")
        assert second.locator("#left-log .turn").get_attribute("data-state") == "streaming"
        held.hold_after = None
        answered(second, "left")
        assert "s9" in text(second, "left-log") and "From the first" not in text(second, "left-log")
        assert "From the second" not in text(first, "left-log")


def test_the_page_waits_for_the_server(chromium: Any, page_url: str, fake: FakeServer) -> None:
    fake.ready = False
    with open_page(chromium, page_url) as page:
        has(page, "status", "not ready")
        page.fill("#prompt textarea", "Hello")
        page.click("#send")
        has(page, "left-log", "not ready")
        screenshot(page, "waiting-1600")
        fake.ready, fake.report = True, None
        has(page, "status", "Connected")
        ready(page)
        assert page.locator("button.example:visible").count() == 0 and not page.locator("#recorded").is_visible()


@pytest.mark.parametrize("key", ["wrong"])
def test_no_server_and_a_wrong_key(chromium: Any, fake: FakeServer, key: str) -> None:
    fake.key = "right"
    with serve_page(fake.url, api_key=key) as url, open_page(chromium, url) as page:
        has(page, "status", f"The server at {fake.url} does not accept the API key.")
        assert key not in page.content()
