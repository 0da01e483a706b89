"""The page in a real Chromium, mounted by a real server that asks for keys: login, both sides, the dial, the skills."""

import json
import re
import urllib.request
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests import serving
from tests.browser import chromium, open_page, screenshot
from tests.ui.browsing import has, tab, text

__all__ = ["chromium"]
KEY = "e2e-key"
ANSWER_TIMEOUT_MS = 120_000  # a small machine, and the first request may still compile
LONG_ENOUGH_TO_GROW = 8  # tokens; a shorter answer may be drawn in one go

# Collects every text that the answer of a side ever had.
WATCH = """
(side) => {
  const log = document.getElementById(side + '-log');
  window.seen = window.seen || {};
  window.seen[side] = [];
  new MutationObserver(() => {
    const text = log.querySelector('.said.bot .text')?.textContent;
    const seen = window.seen[side];
    if (text && seen[seen.length - 1] !== text) seen.push(text);
  }).observe(log, {subtree: true, childList: true, characterData: true});
}
"""


@pytest.fixture(scope="module")
def server() -> Iterator[serving.Server]:
    """`cllm serve demo/model --ui`, guarded by a key."""
    server = serving.start(serving.DEMO, "demo", "--ui", CLLM_API_KEYS=KEY)
    yield server
    assert serving.stop(server) == 0


@pytest.fixture(scope="module")
def report(server: serving.Server) -> dict[str, Any]:
    request = urllib.request.Request(f"{server.url}/control", headers={"Authorization": f"Bearer {KEY}"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)["report"]


@pytest.fixture
def page(chromium: Any, server: serving.Server) -> Iterator[Any]:
    with open_page(chromium, f"{server.root}/ui/", width=1600) as page:
        page.fill("#secret", KEY)
        page.click("button")
        page.wait_for_selector("#right-title code", timeout=ANSWER_TIMEOUT_MS)
        yield page


def answer_of(page: Any, side: str) -> str:
    """The side's only turn, once it is done."""
    page.wait_for_selector(f"#{side}-log .turn[data-state=done]", timeout=ANSWER_TIMEOUT_MS)
    return text(page, f"{side}-log")


def test_the_page_asks_for_a_key_and_the_api_still_does(chromium: Any, server: serving.Server) -> None:
    assert httpx.get(f"{server.url}/models", verify=False).status_code == 401
    assert httpx.get(f"{server.root}/ui/config", verify=False).status_code == 401
    with open_page(chromium, f"{server.root}/ui") as page:
        page.fill("#secret", "wrong")
        page.click("button")
        page.wait_for_selector("[role=alert]:has-text('was not accepted')")


def test_a_prompt_streams_into_both_sides(page: Any, report: dict[str, Any]) -> None:
    longest = max(report["examples"], key=lambda example: len(example["expected"]))
    models = {"left": "demo:base", "right": "demo"}
    for side, model in models.items():
        assert page.locator(f"#{side}-title code").inner_text() == model
        page.evaluate(WATCH, side)
    page.fill("#prompt textarea", longest["prompt"])
    page.click("#send")
    for side, model in models.items():
        log = answer_of(page, side)
        assert "first token" in log and "tokens/s" in log
        proof = re.search(r"cllm-[0-9a-f]{12}-s([0-9.]+)", log)
        assert proof is not None and float(proof[1]) == (0 if side == "left" else 1)
        found = re.search(r"answer\s+(\d+) tokens", log)
        assert found is not None
        grown = page.evaluate("side => window.seen[side]", side)
        assert grown, f"{model} answered nothing"
        assert len(grown) > 1 or int(found[1]) < LONG_ENOUGH_TO_GROW, f"{model} did not stream: {grown}"
        assert all(after.startswith(before) for before, after in zip(grown, grown[1:], strict=False))


@pytest.mark.parametrize(("kind", "picture"), [("original", "demo"), ("new", "demo-new-skill")])
def test_an_example_brings_what_full_fine_tuning_answered(
    page: Any, report: dict[str, Any], kind: str, picture: str
) -> None:
    page.locator(f"#examples-{kind} button.example:visible").first.click()
    for side in ("left", "right"):
        answer_of(page, side)
    asked = page.locator("#left-log .said.user").evaluate("e => e.textContent")
    example = next(e for e in report["examples"] if e["prompt"] == asked)
    recorded = text(page, "recorded")
    assert "Recorded during training: full fine-tuning of the same base" in recorded
    assert (example["answers"].get("full_fine_tuning") or "").strip() in recorded
    page.mouse.move(0, 0)
    screenshot(page, picture)


def test_the_dial_and_the_skills(page: Any, report: dict[str, Any]) -> None:
    new = next(skill["name"] for skill in report["skills"] if skill["kind"] == "new")
    example = next(example for example in report["examples"] if example["skill"] == new)
    tab(page, "Sweep")
    page.fill("#sweep-prompt textarea", example["prompt"])
    page.fill("#sweep-scales input", "0, 0.5, 1")
    page.click("#sweep-start")
    done = "document.querySelectorAll('#sweep-table tr[data-state=done]').length === 3"
    page.wait_for_function(done, timeout=ANSWER_TIMEOUT_MS)
    rows = page.locator("#sweep-table tbody tr").all_inner_texts()
    for row, scale in zip(rows, ("0", "0.5", "1"), strict=True):
        assert re.search(rf"cllm-[0-9a-f]{{12}}-s{re.escape(scale)}\b", row)
    assert example["answers"]["base"] in rows[0] and example["answers"]["control"] in rows[2]
    screenshot(page, "demo-sweep")
    tab(page, "Skills")
    page.click("#skills-start")
    page.wait_for_function(
        "/^(\\d+) of \\1 prompts/.test(document.getElementById('skills-note').innerText)", timeout=ANSWER_TIMEOUT_MS
    )
    has(page, "skills-table", "Live at 1")
    page.wait_for_timeout(300)
    screenshot(page, "demo-skills")
    tab(page, "Report")
    page.wait_for_selector("#plot-alignment svg path")
    screenshot(page, "demo-report")
