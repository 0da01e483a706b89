"""HTML pieces and the report: what is shown is exact, and nothing from outside becomes markup."""

import html

import pytest

from tests.ui.fake_server import REPORT
from ui import render
from ui.answer import Answer, Target
from ui.client import ServerInfo
from ui.report import Report, read_report

EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture
def report() -> Report:
    report = read_report(REPORT)
    assert report is not None
    return report


def test_nothing_from_outside_becomes_markup() -> None:
    answer = Answer(Target("m"), state="failed", error=EVIL, fingerprint=EVIL)
    evil = read_report(
        {
            "schema": 1,
            "skills": [{"name": "s", "label": EVIL, "kind": "new", "scores": {EVIL: 1}}],
            "examples": [{"skill": "s", "prompt": EVIL, "expected": EVIL, "answers": {"full_fine_tuning": EVIL}}],
        }
    )
    shown = [
        render.answer_footer(answer), render.pane_title("x", Target(EVIL)), render.recorded(evil, EVIL),
        render.summary(evil), render.per_skill(evil), render.message(EVIL, False), render.message(EVIL, True),
        render.status(ServerInfo(problem=EVIL), "u"), render.status(ServerInfo(), EVIL),
    ]  # fmt: skip
    assert all("<img" not in piece for piece in shown)


@pytest.mark.parametrize("text", ["a", "  indented\n    more\n", "\n\nlate", "a\tb", "1 < 2 & 3", "<unk>\n  <s>"])
def test_a_plain_message_survives_gradio_s_cleandoc(text: str) -> None:
    import inspect

    assert html.unescape(inspect.cleandoc(render.message(text, markdown=False))) == text


def test_markdown_keeps_code_as_it_is() -> None:
    text = "a <unk> `x<y` and\n```\nif a < b:\n```\n<s>"
    assert render.message(text, True) == "a &lt;unk> `x<y` and\n```\nif a < b:\n```\n&lt;s>"


def test_the_footer_tells_numbers_and_how_it_ended() -> None:
    answer = Answer(Target("m"), "text", "done", finish_reason="length", first_token_s=0.0123, last_token_s=2.0123)
    answer.tokens, answer.tokens_are_exact = 41, True
    footer = render.answer_footer(answer)
    assert "12 ms" in footer and "20.0 tokens/s" in footer and "41 tokens" in footer and "length limit" in footer
    answer.tokens_are_exact = False
    assert "≈ 41 tokens" in render.answer_footer(answer)
    assert "waiting" in render.answer_footer(Answer(Target("m")))


def test_tables_hold_the_report_s_numbers(report: Report) -> None:
    summary = render.summary(report)
    for text in ("99.1 %", "98.3 %", "10.5 %", "0 %", "99.8 %", "100 %", "mean of 3", "Full fine-tuning"):
        assert text in summary
    assert "Upper case" in render.per_skill(report)
    assert render.summary(None) == render.per_skill(None) == ""


def test_a_recording_is_shown_for_its_own_prompt_only(report: Report) -> None:
    assert "&lt;unk&gt;xq" in render.recorded(report, "U river=")
    assert "xq" not in render.recorded(report, "U rivers=")
    assert "(empty answer)" in render.recorded(report, "A 12+7=")
    assert "Choose an example" in render.recorded(report, "")
    assert render.recorded(None, "U river=") == ""


def test_examples_take_turns_between_skills(report: Report) -> None:
    twice = report.model_copy(update={"examples": [*report.examples[:1] * 3, *report.examples[1:]]})
    assert [e.skill for e in twice.examples_of("original", 3)] == ["reverse", "upper", "add"]
    assert [e.skill for e in twice.examples_of("new", 9)] == ["foreign", "foreign"]
