"""HTML pieces: what is shown is exact, and nothing from outside becomes markup."""

import html
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from tests.ui.fake_server import REPORT
from ui.answer import Sampling, Turn
from ui.html import diff, login, pieces, tables, text, transcript
from ui.info import Dial, ServerInfo
from ui.report import Report, Skill, read_report
from ui.servers import Server
from ui.skills import Run, Tally
from ui.votes import Standing

EVIL = "<img src=x onerror=alert(1)><script>alert(2)</script>\"'><b>"
SERVER = Server("http://h/v1")


@pytest.fixture
def report() -> Report:
    report = read_report(REPORT)
    assert report is not None
    return report


def turn(**changes: Any) -> Turn:
    facts = {"prompt": "p", "text": "t", "model": "m", "title": "Base model", "server": SERVER.url, "scale": 1.0}
    return Turn(**{**facts, **changes})


def visible(piece: str) -> str:
    """The text of a piece, as a browser shows it."""
    return html.unescape(re.sub(r"<[^>]*>", "", piece))


class Tags(HTMLParser):
    """Collects what a browser would make of a piece."""

    def __init__(self, piece: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(piece)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}


def test_nothing_from_outside_becomes_markup() -> None:
    evil = read_report(
        {
            "schema": 1,
            "checkpoint": EVIL,
            "skills": [{"name": "s", "label": EVIL, "kind": "new", "scores": {EVIL: 1}}],
            "examples": [{"skill": "s", "prompt": EVIL, "expected": EVIL, "answers": {"full_fine_tuning": EVIL}}],
        }
    )
    bad = turn(
        prompt=EVIL, text=EVIL, model=EVIL, title=EVIL, echoed=EVIL, state="failed", error=EVIL, fingerprint=EVIL
    )
    skills = [Skill(name="s", label=EVIL, kind="new")]
    shown = [
        transcript.transcript(EVIL, [bad], hint=EVIL, as_markdown=False),
        transcript.transcript(EVIL, [bad], hint=EVIL, as_markdown=True),
        transcript.transcript(EVIL, [], hint=EVIL, as_markdown=True),
        transcript.title(EVIL, EVIL, EVIL), pieces.recorded(evil, EVIL), pieces.note(EVIL, is_error=True),
        pieces.status(ServerInfo(SERVER, problem=EVIL)), pieces.facts([(EVIL, EVIL)]), tables.scores(evil),
        pieces.legend({EVIL: "#0d9488"}),
        tables.live_skills(skills, [Run(1, {"s": Tally()})]), tables.sweep([bad], 1.0),
        tables.standings([Standing(EVIL, EVIL, 1, 2, 3)]), login.login_page(EVIL, EVIL, EVIL),
        diff.difference(bad, bad.model_copy(update={"text": EVIL * 2})),
    ]  # fmt: skip
    for piece in shown:
        tags = Tags(piece)
        assert not tags.names & {"img", "script", "b"} and "onerror" not in tags.attributes, piece


@pytest.mark.parametrize(
    "answer", ["a", "  indented\n    more\n", "\n\nlate", "a\tb", "1 < 2 & 3", "<unk>\n  <s>", EVIL]
)
def test_a_plain_answer_is_shown_to_the_letter(answer: str) -> None:
    assert visible(text.plain(answer)) == answer


def test_markdown_runs_and_loads_nothing() -> None:
    shown = text.markdown(
        "**bold** `x<y` <b>tag</b> [a](javascript:alert(1)) [b](https://h/) ![c](https://tracker/x.png)\n\n"
        "<script>alert(1)</script>\n\n| a | b |\n|---|---|\n| 1 | 2 |"
    )
    tags = Tags(shown)
    assert {"strong", "code", "table", "a"} <= tags.names and not tags.names & {"img", "script", "b"}
    assert (
        "javascript:" not in re.findall(r'href="([^"]*)"', shown)[0] and 'rel="noopener noreferrer nofollow"' in shown
    )
    assert "<b>tag</b>" in visible(shown) and "<script>alert(1)</script>" in visible(shown)
    assert text.markdown("<a href=x>not a link</a>").count("<a ") == 0


def test_a_very_long_prompt_is_shortened_on_the_page_only() -> None:
    shown = text.shortened("x" * 100_000)
    assert shown.startswith("x" * 6000) and "(94 000 more characters were sent)" in shown and len(shown) < 6100
    assert text.shortened("x" * 6000) == "x" * 6000


def test_the_footer_tells_numbers_and_how_it_ended() -> None:
    done = turn(finish_reason="length", first_token_s=0.0123, tokens_per_second=20.0, tokens=41, prompt_tokens=7)
    shown = visible(transcript.footer(done))
    for fact in ("12 ms", "20.0 tokens/s", "prompt 7 tokens", "≈ 41 tokens", "length limit"):
        assert fact in shown
    assert "≈" not in transcript.footer(done.model_copy(update={"tokens_are_exact": True}))
    assert "waiting" in transcript.footer(turn(state="waiting"))
    assert "answered as m-2026" in visible(
        transcript.transcript("Left", [turn(echoed="m-2026")], hint="", as_markdown=False)
    )


def test_tables_hold_the_report_s_numbers(report: Report) -> None:
    shown = visible(tables.scores(report))
    for number in (
        "99.1 %",
        "98.3 %",
        "10.5 %",
        "0 %",
        "99.8 %",
        "100 %",
        "mean of 3",
        "Full fine-tuning",
        "Upper case",
    ):
        assert number in shown
    assert "no scores" in tables.scores(None)


def test_the_live_table_groups_what_is_kept_and_what_is_learned(report: Report) -> None:
    half = Run(0.5, {"reverse": Tally(asked=2, right=1), "foreign": Tally(asked=3, right=3), "add": Tally(failed=2)})
    shown = tables.live_skills(report.skills, [Run(0.0), half])
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall(r"<tr.*?</tr>", shown)]
    by_name = {visible(row[0]): [visible(cell) for cell in row[1:]] for row in rows}
    assert by_name["Skill"] == ["Base in training", "Control LLM in training", "Live at 0", "Live at 0.5"]
    assert by_name["Reverse"] == ["99.3 %", "98.7 %", "–", "1/2 of 3"]
    assert by_name["Foreign"][-1] == "3/3" and by_name["Add"][-1] == "– 2 failed"
    assert by_name["Kept mean of 3"][-1] == "50 %" and by_name["Learned mean of 1"][-1] == "100 %"


def test_a_recording_is_shown_for_its_own_prompt_only(report: Report) -> None:
    assert "&lt;unk&gt;xq" in pieces.recorded(report, "U river=")
    assert "xq" not in pieces.recorded(report, "U rivers=")
    assert "(empty answer)" in pieces.recorded(report, "A 12+7=")
    assert "Choose an example" in pieces.recorded(report, "")
    assert pieces.recorded(None, "U river=") == ""


def test_examples_take_turns_between_skills(report: Report) -> None:
    twice = report.model_copy(update={"examples": [*report.examples[:1] * 3, *report.examples[1:]]})
    assert [e.skill for e in twice.examples_of("original", 3)] == ["reverse", "upper", "add"]
    assert [e.skill for e in twice.examples_of("new", 9)] == ["foreign", "foreign"]


def test_the_recommended_scale_stands_where_it_is_on_the_slider() -> None:
    shown = pieces.ticks(Dial("m", recommended=0.5, most=2.0))
    assert 'class="best" style="--at:0.2500">recommended' in shown
    assert 'style="--at:0.5000">as trained' in shown and 'style="--at:0.0000">base' in shown
    assert "as trained, recommended" in pieces.ticks(Dial("m", recommended=1.0))


def test_differences_are_those_of_the_words() -> None:
    left, right = turn(text="a  b c", model="l"), turn(text="a x c d", model="r")
    shown = diff.difference(left, right)
    body = shown.split('class="text diff">')[1]
    assert re.findall(r"<del>(.*?)</del>", body) == ["b"] and re.findall(r"<ins>(.*?)</ins>", body) == ["x", "d"]
    assert "only left: <code>l</code>" in shown
    assert "the same, to the letter" in diff.difference(left, turn(text="a  b c"))
    assert "different prompts" in diff.difference(left, turn(prompt="other", text="x"))
    assert "once both sides have answered" in diff.difference(left, turn(text=""))
    assert "too long to compare" in diff.difference(turn(text="w " * 5001), right)


def test_sampling_that_is_not_allowed_is_refused() -> None:
    for wrong in ({"temperature": 3}, {"top_p": 0}, {"max_tokens": 0}, {"seed": "x"}):
        with pytest.raises(ValueError):
            Sampling(**wrong)  # type: ignore[arg-type]
