"""The page in a real Chromium against a real server: both panes stream, and each names its own model.

`demo_server` (tests/e2e/conftest.py) gives the running server: `.url` with its /v1, and `.name`.
"""

import json
import os
import re
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser import chromium, open_page, screenshot
from tests.ui.page_server import serve_page

__all__ = ["chromium"]
ANSWER_TIMEOUT_MS = 120_000  # a small machine, and the first request may still compile
LONG_ENOUGH_TO_GROW = 8  # tokens; a shorter answer may be drawn in one go

# Collects every text that the newest answer of a pane ever had.
WATCH = """
(side) => {
  const pane = document.getElementById(side + '-pane');
  window.seen = window.seen || {};
  window.seen[side] = [];
  new MutationObserver(() => {
    const answers = pane.querySelectorAll('[data-testid=bot]');
    const text = answers.length ? answers[answers.length - 1].textContent : '';
    const seen = window.seen[side];
    if (text && seen[seen.length - 1] !== text) seen.push(text);
  }).observe(pane, {subtree: true, childList: true, characterData: true});
}
"""


@pytest.fixture(scope="module")
def page_url(demo_server: Any) -> Iterator[str]:
    with serve_page(demo_server.url) as url:
        yield url


def report_of(demo_server: Any) -> dict[str, Any]:
    key = os.environ.get("CLLM_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    request = urllib.request.Request(f"{demo_server.url}/control", headers=headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)["report"] or {}


def wait_for_answer(page: Any, side: str) -> str:
    """The footer under the pane's finished answer."""
    page.wait_for_function(
        "(side) => document.getElementById(`${side}-footer`).innerText.includes('length')",
        arg=side,
        timeout=ANSWER_TIMEOUT_MS,
    )
    page.wait_for_selector("#stop[disabled]", timeout=ANSWER_TIMEOUT_MS)
    assert page.locator(f"#{side}-footer [role=alert]").count() == 0
    return page.locator(f"#{side}-footer").inner_text()


def test_a_prompt_streams_into_both_panes(chromium: Any, page_url: str, demo_server: Any) -> None:
    examples = report_of(demo_server).get("examples", [])
    longest = max(examples, key=lambda example: len(example["expected"]), default={"prompt": "Who are you?"})
    models = {"base": f"{demo_server.name}:base", "control": demo_server.name}
    with open_page(chromium, page_url, width=1600) as page:
        for side, model in models.items():
            page.wait_for_function(
                "([side, model]) => document.querySelector(`#${side}-title code`)?.innerText === model",
                arg=[side, model],
                timeout=60_000,
            )
            page.evaluate(WATCH, side)
        page.fill("#prompt textarea", longest["prompt"])
        page.click("#send")
        for side, model in models.items():
            footer = wait_for_answer(page, side)
            assert page.locator(f"#{side}-title code").inner_text() == model
            assert "first token" in footer
            proof = re.search(r"cllm-[0-9a-f]+-s([0-9.]+)", footer)
            assert proof is None or (float(proof[1]) == 0) is (side == "base")
            tokens = int(footer.split("length")[1].split("tokens")[0])
            grown = page.evaluate("side => window.seen[side]", side)
            assert grown, f"{model} answered nothing"
            assert len(grown) > 1 or tokens < LONG_ENOUGH_TO_GROW, f"{model} did not stream: {grown}"
            assert all(after.startswith(before) for before, after in zip(grown, grown[1:], strict=False))


@pytest.mark.parametrize(("kind", "picture"), [("original", "demo"), ("new", "demo-new-skill")])
def test_an_example_brings_what_full_fine_tuning_answered(
    chromium: Any, page_url: str, demo_server: Any, kind: str, picture: str
) -> None:
    report = report_of(demo_server)
    assert report.get("examples")
    with open_page(chromium, page_url, width=1600) as page:
        button = page.locator(f"#examples-{kind} button.example:visible").first
        button.wait_for(timeout=60_000)
        button.click()
        for side in ("base", "control"):
            wait_for_answer(page, side)
        asked = page.locator("#base-chat [data-testid=user] .md").evaluate("e => e.textContent")
        example = next(e for e in report["examples"] if e["prompt"].strip() == asked.strip())
        recorded = page.locator("#recorded").inner_text()
        assert "Recorded during training: full fine-tuning of the same base" in recorded
        answer = (example["answers"].get("full_fine_tuning") or "").strip()
        assert answer in recorded
        page.mouse.move(0, 0)
        screenshot(page, picture)
