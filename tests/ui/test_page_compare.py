"""The two sides in a real Chromium against a fake server: streams, names, scales, sampling, prompts, differences."""

from typing import Any

import pytest

from tests.browser import chromium, open_page
from tests.ui.browsing import (
    SLOW,
    answered,
    answers,
    choose,
    downloaded,
    has,
    kept,
    lines,
    prompts,
    ready,
    send,
    set_scale,
    text,
    wait_kept,
)
from tests.ui.fake_server import FakeServer, wait_until

__all__ = ["chromium"]


def test_both_sides_stream_side_by_side(chromium: Any, page_url: str, fake: FakeServer) -> None:
    slow = fake.plan("demo:base", pieces=SLOW[:40], hold_after=2)
    quick = fake.plan("demo@0.75", pieces=[f"w{i} " for i in range(20)], hold_after=4)
    with open_page(chromium, page_url) as page:
        send(page, "Hello there")
        has(page, "right-log", "w3")
        has(page, "left-log", "s1")  # both are under way
        quick.hold_after = None
        answered(page, "right")  # the slow side holds nothing up
        assert answers(page, "left") == ["s0 s1 "]
        slow.hold_after = None
        answered(page, "left")
        assert text(page, "left-title").split() == ["Left", "Base", "model", "demo:base"]
        assert text(page, "right-title").split() == ["Right", "Control", "LLM", "at", "scale", "0.75", "demo@0.75"]
        for side, scale, tokens in (("left", "0", 40), ("right", "0.75", 20)):
            log = text(page, f"{side}-log")
            for fact in ("tokens/s", "first token", "prompt 3 tokens", f"answer {tokens} tokens"):
                assert fact in log
            assert f"cllm-0123456789ab-s{scale}" in log
        assert "There is no recording for this prompt" in text(page, "recorded")
        page.wait_for_selector("#stop[disabled]")
    assert sorted(r["model"] for r in fake.requests) == ["demo:base", "demo@0.75"]
    assert {r["messages"][0]["content"] for r in fake.requests} == {"Hello there"}


def test_each_answer_keeps_the_name_of_its_model(chromium: Any, page_url: str, fake: FakeServer) -> None:
    """Turning the dial renames what is asked next, never what has been answered."""
    fake.plan("demo@0.75", pieces=["from three quarters"])
    fake.plan("demo@1.5", pieces=["from beyond"])
    with open_page(chromium, page_url) as page:
        send(page, "One")
        answered(page, "right")
        set_scale(page, "right", 1.5)
        has(page, "right-title", "demo@1.5")
        by = page.locator("#right-log .by")
        assert by.all_inner_texts() == ["Control LLM at scale 0.75 demo@0.75"]
        page.click("#right-again")  # this side only, in place of its answer
        has(page, "right-log", "from beyond")
        assert by.all_inner_texts() == ["Control LLM at scale 1.5 demo@1.5"]
        assert prompts(page, "right") == ["One"] and len(fake.asked("demo:base")) == 1
        choose(page, "right", "Base")
        has(page, "right-title", "demo:base")
        choose(page, "right", "Dial")
        set_scale(page, "right", 1)
        has(page, "right-title", "Control LLM at scale 1\ndemo")


def test_a_number_beyond_the_dial_is_put_right(
    chromium: Any, page_url: str, fake: FakeServer, capfd: pytest.CaptureFixture[str]
) -> None:
    with open_page(chromium, page_url) as page:
        ready(page)
        number = page.locator("#right-scale input[type=number]")
        for typed, kept_as, model in (("5", "2", "demo@2"), ("", "2", "demo@2"), ("-1", "0", "demo:base")):
            number.fill(typed)
            page.keyboard.press("Tab")
            has(page, "right-title", model)
            assert number.input_value() == kept_as
        send(page, "Hello")
        answered(page, "right")
    assert {request["model"] for request in fake.requests} == {"demo:base"}
    assert "Traceback" not in capfd.readouterr().err


def test_one_side_is_stopped_and_the_other_goes_on(chromium: Any, page_url: str, fake: FakeServer) -> None:
    fake.plan("demo:base", pieces=SLOW, hold_after=4)
    right = fake.plan("demo@0.75", pieces=SLOW, hold_after=4)
    with open_page(chromium, page_url) as page:
        send(page, "Hello")
        has(page, "left-log", "s3")
        has(page, "right-log", "s3")
        page.click("#left-stop")
        wait_until(lambda: fake.left == ["demo:base"])
        answered(page, "left")
        assert "stopped" in text(page, "left-log") and page.locator("#left-stop").is_disabled()
        right.hold_after = 8
        has(page, "right-log", "s7")
        page.click("#stop")
        wait_until(lambda: fake.left == ["demo:base", "demo@0.75"])
        answered(page, "right")
        fake.reset()
        send(page, "And now?")
        answered(page, "left", 2)
        answered(page, "right", 2)
    roles = [m["role"] for m in fake.requests[-1]["messages"]]
    assert roles == ["user", "assistant", "user"]
    assert fake.requests[-1]["messages"][1]["content"].startswith("s0 s1 s2 s3")


def test_a_new_prompt_and_leaving_end_the_answers_under_way(chromium: Any, page_url: str, fake: FakeServer) -> None:
    both = ["demo:base", "demo@0.75"]
    fake.default.pieces, fake.default.hold_after = SLOW, 4
    with open_page(chromium, page_url) as page:
        send(page, "Hello")
        has(page, "left-log", "s3")
        has(page, "right-log", "s3")
        for model in both:
            fake.plan(model)
        send(page, "Instead")
        answered(page, "left", 2)
        answered(page, "right", 2)
        wait_until(lambda: sorted(fake.left) == both)
        assert prompts(page, "left") == ["Hello", "Instead"]
        fake.reset()
        fake.default.pieces, fake.default.hold_after = [f"never {piece}" for piece in SLOW], 4
        send(page, "Never answered")
        has(page, "left-log", "never s3")
        has(page, "right-log", "never s3")
    wait_until(lambda: set(fake.left) == set(both), 60)


def test_system_prompt_and_sampling_are_those_of_each_side(chromium: Any, page_url: str, fake: FakeServer) -> None:
    with open_page(chromium, page_url) as page:
        ready(page)
        page.click("#left-sampling button")
        page.fill("#left-system textarea", "Be brief.")
        fields = page.locator("#left-sampling input")
        for place, value in enumerate(("0.7", "0.9", "64", "7")):
            fields.nth(place).fill(value)
        page.keyboard.press("Tab")
        page.wait_for_timeout(300)
        send(page, "Hello")
        answered(page, "left")
        answered(page, "right")
        fields.nth(0).fill("3")
        page.keyboard.press("Tab")
        page.wait_for_timeout(300)
        send(page, "Again")
        has(page, "left-log", "Temperature must be a number from 0 to 2.")
        answered(page, "right", 2)
    (left,) = fake.asked("demo:base")
    assert left["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (left["temperature"], left["top_p"], left["max_tokens"], left["seed"]) == (0.7, 0.9, 64, 7)
    right = fake.asked("demo@0.75")[0]
    assert (right["temperature"], right["max_tokens"]) == (0, 1024) and not {"top_p", "seed"} & right.keys()
    assert [m["role"] for m in right["messages"]] == ["user"]


def test_a_prompt_for_each_side(chromium: Any, page_url: str, fake: FakeServer) -> None:
    with open_page(chromium, page_url) as page:
        ready(page)
        page.get_by_label("Separate prompts").check()
        page.fill("#left-prompt textarea", "Only left")
        page.click("#left-send")
        answered(page, "left")
        page.fill("#right-prompt textarea", "Only right")
        page.keyboard.press("Enter")
        answered(page, "right")
        assert not page.locator("#prompt").is_visible()
        assert (prompts(page, "left"), prompts(page, "right")) == (["Only left"], ["Only right"])
    assert [r["messages"][0]["content"] for r in fake.requests] == ["Only left", "Only right"]


def test_each_side_keeps_its_own_conversation(chromium: Any, page_url: str, fake: FakeServer) -> None:
    fake.plan("demo:base", pieces=["from the base"])
    fake.plan("demo@0.75", pieces=["from the trained"])
    with open_page(chromium, page_url) as page:
        for number, prompt in enumerate(("One", "Two"), 1):
            send(page, prompt)
            answered(page, "left", number)
            answered(page, "right", number)
        page.get_by_label("Keep the conversation").uncheck()
        page.wait_for_timeout(300)
        send(page, "Three")
        answered(page, "left", 3)
        answered(page, "right", 3)
        page.click("#clear")
        has(page, "left-log", "The left side answers here.")
    second = {r["model"]: r["messages"] for r in fake.requests[2:4]}
    assert second["demo:base"][1]["content"] == "from the base"
    assert second["demo@0.75"][1]["content"] == "from the trained"
    assert all(len(r["messages"]) == 1 for r in fake.requests[4:])


def test_an_example_starts_afresh_and_brings_its_recording(chromium: Any, page_url: str, fake: FakeServer) -> None:
    with open_page(chromium, page_url) as page:
        send(page, "Something else first")
        answered(page, "left")
        answered(page, "right")
        page.click("button.example:has-text('U river=')")
        has(page, "recorded", "<unk>xq")
        assert "RIVER" in text(page, "recorded")
        assert "Recorded during training: full fine-tuning of the same base" in text(page, "recorded")
        wait_until(lambda: len(fake.requests) == 4)
        answered(page, "left")
        assert prompts(page, "left") == ["U river="]
    assert all(r["messages"] == [{"role": "user", "content": "U river="}] for r in fake.requests[2:])


def test_differences_export_and_reload(chromium: Any, page_url: str, fake: FakeServer) -> None:
    fake.plan("demo:base", pieces=["the quick brown fox"])
    fake.plan("demo@0.75", pieces=["the quick red fox"])
    with open_page(chromium, page_url) as page:
        ready(page)
        page.get_by_label("Show differences").check()
        send(page, "A fox")
        answered(page, "left")
        answered(page, "right")
        page.wait_for_selector("#difference .diff ins")
        assert page.locator("#difference .diff del").all_inner_texts() == ["brown"]
        assert page.locator("#difference .diff ins").all_inner_texts() == ["red"]
        page.click("#export > button")
        page.fill("#export-name input", "../../etc/pass wd<b>")
        name, content = downloaded(page, "export-jsonl")
        assert name == "etc-pass wd-b.jsonl"
        exported = lines(content)
        assert [(line["side"], line["model"], line["text"]) for line in exported] == [
            ("left", "demo:base", "the quick brown fox"),
            ("right", "demo@0.75", "the quick red fox"),
        ]
        assert exported[1]["fingerprint"] == "cllm-0123456789ab-s0.75" and exported[1]["prompt"] == "A fox"
        name, content = downloaded(page, "export-md")
        assert name == "etc-pass wd-b.md" and "the quick red fox" in content
        before = kept(page)
        set_scale(page, "right", 0.4)
        wait_kept(page, before)
        page.reload()
        has(page, "right-log", "the quick red fox")
        has(page, "right-title", "demo@0.4")
        assert page.get_by_label("Show differences").is_checked()
        page.wait_for_selector("#difference .diff ins")
        send(page, "And now?")
        answered(page, "right", 2)
    messages = fake.asked("demo@0.4")[0]["messages"]
    assert [m["content"] for m in messages] == ["A fox", "the quick red fox", "And now?"]
