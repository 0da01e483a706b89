"""The page in a real Chromium against a fake server: streams, names, faults, Stop, examples, widths."""

from typing import Any

import pytest

from tests.browser import chromium, open_page, screenshot
from tests.ui.fake_server import FakeServer, Plan, wait_until
from tests.ui.page_server import serve_app, serve_page

__all__ = ["chromium"]
SLOW = [f"s{i} " for i in range(40)]


def text(page: Any, element: str) -> str:
    return page.locator(f"#{element}").inner_text()


def send(page: Any, prompt: str) -> None:
    page.wait_for_selector("#control-title code:has-text('demo')")
    page.fill("#prompt textarea", prompt)
    page.click("#send")


def has(page: Any, element: str, wanted: str, timeout_s: float = 60) -> None:
    page.wait_for_function(
        "([id, text]) => document.getElementById(id)?.innerText.includes(text)",
        arg=[element, wanted],
        timeout=1000 * timeout_s,
    )


def test_both_sides_stream_side_by_side(chromium: Any, page_url: str, fake: FakeServer) -> None:
    fake.plans["demo:base"] = Plan(pieces=SLOW, delay_s=0.1)
    fake.plans["demo"] = Plan(pieces=[f"w{i} " for i in range(20)], delay_s=0.05)
    with open_page(chromium, page_url) as page:
        send(page, "Hello there")
        has(page, "control-chat", "w3")
        seen = text(page, "control-chat")
        assert "w19" not in seen  # it grows
        has(page, "control-footer", "length 20 tokens")
        early = text(page, "base-chat")
        assert "s1 " in early and "s39" not in early  # the slow side is under way and held nothing up
        has(page, "base-footer", "length 40 tokens")
        assert len(text(page, "base-chat")) > len(early)
        assert text(page, "base-title").split() == ["Base", "model", "demo:base"]
        assert text(page, "control-title").split() == ["Control", "LLM", "demo"]
        for side, scale in (("base", 0), ("control", 1)):
            footer = text(page, f"{side}-footer")
            assert "tokens/s" in footer and "first token" in footer
            assert f"cllm-0123456789ab-s{scale}" in footer
        assert "There is no recording for this prompt" in text(page, "recorded")
        assert page.locator("#stop").is_disabled()
    assert sorted(r["model"] for r in fake.requests) == ["demo", "demo:base"]
    assert {r["messages"][0]["content"] for r in fake.requests} == {"Hello there"}


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("dies", "The stream broke off after 6 tokens"),
        ("http_error", "HTTP 500: the prompt is too long"),
        ("wrong_model", "answered as “impostor”, but “demo” was asked for"),
    ],
)
def test_one_side_fails_and_the_other_lives(
    chromium: Any, page_url: str, fake: FakeServer, fault: Any, message: str
) -> None:
    fake.plans["demo"].fault = fault
    with open_page(chromium, page_url) as page:
        send(page, "Hello")
        has(page, "control-footer", message)
        has(page, "base-footer", "length 12 tokens")
        assert "w11" in text(page, "base-chat") and "alert" not in page.inner_html("#base-footer")
        if fault == "wrong_model":
            assert "w0" not in text(page, "control-chat")
        if fault == "dies":
            screenshot(page, "ui-one-side-failed")
        fake.plans["demo"].fault = ""
        send(page, "Again")
        has(page, "control-footer", "length 12 tokens")


def test_stop_closes_both_streams_and_keeps_what_came(chromium: Any, page_url: str, fake: FakeServer) -> None:
    fake.plans = {name: Plan(pieces=SLOW * 20, delay_s=0.1) for name in fake.plans}
    with open_page(chromium, page_url) as page:
        send(page, "Hello")
        has(page, "base-chat", "s3")
        has(page, "control-chat", "s3")
        page.click("#stop")
        wait_until(lambda: sorted(fake.left) == ["demo", "demo:base"], 20)
        has(page, "base-footer", "stopped")
        has(page, "control-footer", "stopped")
        fake.plans = {name: Plan() for name in fake.plans}
        send(page, "And now?")
        has(page, "base-footer", "length 12 tokens")
        has(page, "control-footer", "length 12 tokens")
    roles = [m["role"] for m in fake.requests[-1]["messages"]]
    assert roles == ["user", "assistant", "user"]
    assert fake.requests[-1]["messages"][1]["content"].startswith("s0 s1 s2 s3")


def test_a_new_prompt_ends_the_answers_under_way(chromium: Any, page_url: str, fake: FakeServer) -> None:
    fake.plans = {name: Plan(pieces=SLOW * 20, delay_s=0.1) for name in fake.plans}
    with open_page(chromium, page_url) as page:
        send(page, "Hello")
        has(page, "base-chat", "s3")
        fake.plans = {name: Plan() for name in fake.plans}
        send(page, "Instead")
        has(page, "base-footer", "length 12 tokens")
        has(page, "control-footer", "length 12 tokens")
        assert sorted(fake.left) == ["demo", "demo:base"]
        assert page.locator("#base-chat [data-testid=user]").all_inner_texts() == ["Hello", "Instead"]


def test_leaving_the_page_stops_the_engine(chromium: Any, page_url: str, fake: FakeServer) -> None:
    fake.plans = {name: Plan(pieces=SLOW * 20, delay_s=0.1) for name in fake.plans}
    with open_page(chromium, page_url) as page:
        send(page, "Hello")
        has(page, "base-chat", "s3")
    wait_until(lambda: sorted(fake.left) == ["demo", "demo:base"], 30)


def test_an_example_starts_afresh_and_brings_its_recording(chromium: Any, page_url: str, fake: FakeServer) -> None:
    with open_page(chromium, page_url) as page:
        send(page, "Something else first")
        has(page, "base-footer", "length 12 tokens")
        has(page, "control-footer", "length 12 tokens")
        page.click("button.example:has-text('U river=')")
        has(page, "recorded", "<unk>xq")
        has(page, "recorded", "RIVER")
        assert "Recorded during training: full fine-tuning of the same base" in text(page, "recorded")
        wait_until(lambda: len(fake.requests) == 4)
        has(page, "base-footer", "length 12 tokens")
        assert page.locator("#base-chat [data-testid=user]").all_inner_texts() == ["U river="]
        assert "98.3 %" in text(page, "summary")
        screenshot(page, "ui-1600")
        page.click("#clear")
        has(page, "recorded", "Choose an example")
        assert page.locator("#base-chat [data-testid=user]").count() == 0
    assert all(r["messages"] == [{"role": "user", "content": "U river="}] for r in fake.requests[2:])


def test_each_pane_keeps_its_own_conversation(chromium: Any, page_url: str, fake: FakeServer) -> None:
    fake.plans["demo:base"].pieces = ["from the base"]
    fake.plans["demo"].pieces = ["from the trained"]
    with open_page(chromium, page_url) as page:
        send(page, "One")
        has(page, "base-chat", "from the base")
        has(page, "control-chat", "from the trained")
        page.wait_for_selector("#stop[disabled]")
        send(page, "Two")
        wait_until(lambda: len(fake.requests) == 4)
        page.get_by_label("Keep the conversation").uncheck()
        page.wait_for_timeout(300)
        send(page, "Three")
        wait_until(lambda: len(fake.requests) == 6)
    second = {r["model"]: r["messages"] for r in fake.requests[2:4]}
    assert second["demo:base"][1]["content"] == "from the base"
    assert second["demo"][1]["content"] == "from the trained"
    assert all(len(r["messages"]) == 1 for r in fake.requests[4:])


def test_answers_are_shown_to_the_letter(chromium: Any, page_url: str, fake: FakeServer) -> None:
    answer = "  <b>x</b> *a* <unk>\n    def f():\n\treturn `1`\n\n# end"
    fake.plans["demo"].pieces = [answer]
    with open_page(chromium, page_url) as page:
        send(page, "_x_ <i>y</i>")
        has(page, "control-footer", "1 tokens")
        assert page.locator("#control-chat [data-testid=bot] .md").evaluate("e => e.textContent") == answer
        assert page.locator("#control-chat [data-testid=user] .md").evaluate("e => e.textContent") == "_x_ <i>y</i>"
        page.get_by_label("Render Markdown").check()
        page.wait_for_selector("#control-chat [data-testid=bot] code")
        assert "<b>x</b>" in text(page, "control-chat")


def test_a_server_without_report(chromium: Any, page_url: str, fake: FakeServer) -> None:
    fake.report = None
    with open_page(chromium, page_url) as page:
        send(page, "Hello")
        has(page, "base-footer", "length 12 tokens")
        assert page.locator("button.example:visible").count() == 0
        assert not page.locator("#recorded").is_visible() and not page.locator("#scores").is_visible()
        screenshot(page, "ui-no-report")


def test_the_page_waits_for_the_server(chromium: Any, fake: FakeServer, page_url: str) -> None:
    fake.ready = False
    with open_page(chromium, page_url) as page:
        has(page, "status", "not ready")
        page.fill("#prompt textarea", "Hello")
        page.click("#send")
        has(page, "base-footer", "no model to ask yet")
        screenshot(page, "ui-waiting")
        fake.ready = True
        has(page, "status", "Connected")
        assert "demo:base" in text(page, "base-title")


def test_mounted_under_a_path_of_another_server(chromium: Any, fake: FakeServer) -> None:
    from fastapi import FastAPI

    from ui.app import mount

    host = FastAPI()
    host.mount("/page", mount(fake.url))
    with serve_app(host) as url, open_page(chromium, f"{url}/page/") as page:
        send(page, "Hello")
        has(page, "base-footer", "length 12 tokens")


def test_no_server_at_all(chromium: Any) -> None:
    with serve_page("http://127.0.0.1:9/v1") as url, open_page(chromium, url) as page:
        has(page, "status", "No server answers at http://127.0.0.1:9/v1")


@pytest.mark.parametrize("width", [400, 1600])
@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_narrow_and_wide_light_and_dark(
    chromium: Any, page_url: str, fake: FakeServer, width: int, dark: bool
) -> None:
    fake.plans["demo"].pieces = ["a-very-long-word-" * 20, "and ", "more ", "text"]
    with open_page(chromium, page_url, width=width, dark=dark) as page:
        page.wait_for_selector("button.example:visible")
        page.click("button.example:has-text('F lake=')")
        has(page, "control-footer", "4 tokens")
        has(page, "base-footer", "length 12 tokens")
        page.click("text=Scores by skill")
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        screenshot(page, f"ui-{width}-{'dark' if dark else 'light'}")
