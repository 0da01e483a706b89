"""The tabs beside the comparison: the dial's sweep, live skills, the report; votes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser import chromium, open_page
from tests.ui.browsing import SLOW, answered, has, ready, send, tab, text
from tests.ui.fake_server import FakeServer, wait_until
from tests.ui.page_server import serve_page

__all__ = ["chromium"]


def sweep(page: Any, prompt: str, scales: str) -> None:
    page.fill("#sweep-prompt textarea", prompt)
    page.fill("#sweep-scales input", scales)
    page.click("#sweep-start")


def test_a_sweep_has_a_row_for_each_scale(chromium: Any, page_url: str, fake: FakeServer) -> None:
    held = fake.plan("demo@0.5", pieces=SLOW[:9], hold_after=2)
    fake.plan("demo@0.75", fault="http_error")
    fake.plan("demo@1.5", pieces=["from beyond"])
    with open_page(chromium, page_url) as page:
        ready(page)
        tab(page, "Sweep")
        sweep(page, "What is a fox?", "0, 3")
        has(page, "sweep-note", "Control scale must be from 0 to 2.")
        sweep(page, "What is a fox?", "1.5, 0, .5; 0.75 0")
        rows = page.locator("#sweep-table tbody tr")
        page.wait_for_function("document.querySelectorAll('#sweep-table tr[data-state=done]').length === 2")
        has(page, "sweep-table", "s1")
        assert [row.split()[0] for row in rows.all_inner_texts()] == ["0", "0.5", "0.75", "1.5"]
        assert "HTTP 500" in rows.nth(2).inner_text() and "recommended" in rows.nth(2).inner_text()
        assert "from beyond" in rows.nth(3).inner_text() and "cllm-0123456789ab-s1.5" in rows.nth(3).inner_text()
        page.click("#sweep-stop")
        wait_until(lambda: fake.left == ["demo@0.5"])
        has(page, "sweep-table", "stopped")
        held.hold_after = None
    assert {r["messages"][0]["content"] for r in fake.requests} == {"What is a fox?"}


def test_held_out_prompts_fill_the_table_live(chromium: Any, page_url: str, fake: FakeServer) -> None:
    fake.replies = {"R one=": "eno", "R two=": "owt", "U one=": "ONE", "A 1+1=": "2", "A 2+2=": "4", "F one=": "+-1"}
    with open_page(chromium, page_url) as page:
        ready(page)
        tab(page, "Skills")
        has(page, "skills-table", "Learned")
        page.click("#skills-start")
        has(page, "skills-note", "11 of 11 prompts answered at scale 0.75.")
        rows = page.locator("#skills-table tbody tr")
        texts = [row.split("\t") for row in rows.all_inner_texts()]
        assert {row[0].strip(): row[-1].strip() for row in texts} == {
            "Kept mean of 3": "66.7 %", "Reverse": "2/3", "Upper case": "1/3", "Add": "2/2",
            "Learned mean of 1": "33.3 %", "Foreign": "1/3",
        }  # fmt: skip
        page.fill("#skills-scale input[type=number]", "0")
        page.keyboard.press("Tab")
        fake.plan("demo:base", fault="http_error")
        page.wait_for_timeout(300)
        page.click("#skills-start")
        has(page, "skills-note", "HTTP 500")
        has(page, "skills-table", "3 failed")
        assert "Live at 0\tLive at 0.75" in page.locator("#skills-table thead").inner_text()
    assert {r["temperature"] for r in fake.requests} == {0}


def test_the_report_is_shown_as_numbers_and_plots(chromium: Any, page_url: str, fake: FakeServer) -> None:
    with open_page(chromium, page_url) as page:
        ready(page)
        assert page.locator("#right-pane .ticks .best").inner_text() == "recommended"
        tab(page, "Report")
        has(page, "report-facts", "0123456789ab")
        for fact in ("444 k", "896 k", "11.5 min", "0.75"):
            assert fact in text(page, "report-facts")
        assert "98.3 %" in text(page, "report-scores")
        for plot in ("dial", "loss", "weight", "alignment"):
            page.wait_for_selector(f"#plot-{plot} svg path")
            assert page.locator(f"#plot-{plot} svg").first.bounding_box()["width"] > 300
        assert text(page, "plot-dial").split("\n")[-4:] == ["Reverse", "Upper case", "Add", "Foreign"]
        ticks = page.locator("#plot-weight svg text").all_text_contents()
        assert [tick for tick in ticks if tick.isdigit()] == ["1", "3", "5", "7"]  # layers, and nothing between them


@pytest.fixture
def page_with_files(fake: FakeServer, tmp_path: Path) -> Iterator[str]:
    skills = tmp_path / "skills.jsonl"
    skills.write_text(json.dumps({"skill": "own", "prompt": "Own?", "expected": "yes", "kind": "new"}))
    with serve_page(fake.url, votes=tmp_path / "votes.jsonl", skills=skills) as url:
        yield url


def test_votes_and_skills_of_ones_own(chromium: Any, fake: FakeServer, page_with_files: str, tmp_path: Path) -> None:
    fake.replies = {"Own?": "yes"}
    with open_page(chromium, page_with_files) as page:
        ready(page)
        page.click("#vote-left")
        has(page, "vote-note", "Ask both sides the same prompt")
        send(page, "Which is better?")
        answered(page, "left")
        answered(page, "right")
        page.click("#vote-left")
        has(page, "vote-note", "Counted.")
        page.click("#tally-part > button")
        has(page, "tally", "demo:base")
        assert page.locator("#tally tbody tr").inner_text().split() == ["demo:base", "1", "0", "0", "demo@0.75"]
        tab(page, "Skills")
        page.click("#skills-start")
        has(page, "skills-note", "1 of 1")
        assert "1/1" in text(page, "skills-table")
    (vote,) = map(json.loads, (tmp_path / "votes.jsonl").read_text().splitlines())
    assert (vote["vote"], vote["left"]["model"], vote["prompt"]) == ("left", "demo:base", "Which is better?")


def test_without_a_file_there_are_no_votes(chromium: Any, page_url: str, fake: FakeServer) -> None:
    with open_page(chromium, page_url) as page:
        ready(page)
        assert page.locator("#votes").count() == 0
