"""What leaves the page: exports, votes, what the browser keeps; and what comes in: a file of skills."""

import json
import re
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ui.answer import Sampling, Turn
from ui.export import as_jsonl, as_markdown, file_name
from ui.report import Report
from ui.saved import MOST_CHARACTERS, Saved, SavedSide, read_saved
from ui.skills import read_skills, skills_of
from ui.votes import Ballot, Standing

LEFT = Turn(
    prompt="Why?", text="Because.", model="m:base", title="Base model", server="http://h/v1", fingerprint="f-s0"
)
RIGHT = LEFT.model_copy(
    update={"text": "So.", "model": "m@0.5", "scale": 0.5, "sampling": Sampling(system="Be brief.")}
)


@given(st.text(max_size=200), st.sampled_from(["jsonl", "md"]))
def test_any_name_becomes_the_name_of_one_file(wanted: str, extension: str) -> None:
    name = file_name(wanted, extension)
    assert name.endswith(f".{extension}") and len(name) <= 90 and not name.startswith((".", "-", " "))
    assert not re.search(r'[/\\:*?"<>|\x00-\x1f]', name)


@pytest.mark.parametrize(
    ("wanted", "name"),
    [("a/b\\c", "a-b-c.md"), ("../../etc/passwd", "etc-passwd.md"), ("", "comparison.md"), ("...", "comparison.md"),
     ("run 1.md", "run 1.md"), ("größe", "größe.md"), (".hidden", "hidden.md"), ("a\nb\0c", "a-b-c.md")],
)  # fmt: skip
def test_names_that_a_reader_may_type(wanted: str, name: str) -> None:
    assert file_name(wanted, "md") == name


def test_jsonl_holds_every_turn_with_all_that_made_it() -> None:
    lines = [json.loads(line) for line in as_jsonl({"left": [LEFT], "right": [RIGHT, LEFT]}).splitlines()]
    assert [line["side"] for line in lines] == ["left", "right", "right"]
    assert lines[1]["model"] == "m@0.5" and lines[1]["sampling"]["system"] == "Be brief." and lines[1]["scale"] == 0.5
    assert not any("key" in line for line in lines)


@given(st.text(alphabet="`ab\n", max_size=60))
def test_markdown_fences_hold_any_answer(answer: str) -> None:
    """No run of backticks in an answer ends its fence."""
    shown = as_markdown({"left": [LEFT.model_copy(update={"text": answer})]})
    if answer:
        fence = shown.split("Base model: `m:base`\n\n")[1].partition("text\n")[0]
        assert f"{fence}text\n{answer}\n{fence}" in shown and fence not in answer


def test_markdown_names_what_another_server_called_itself_on_one_line() -> None:
    shown = as_markdown({"left": [LEFT.model_copy(update={"echoed": "m-2026\n# A heading", "error": "broken\n- off"})]})
    assert "- answered as: m-2026 # A heading\n" in shown and "- error: broken - off\n" in shown
    assert "answered as" not in as_markdown({"left": [LEFT.model_copy(update={"echoed": LEFT.model})]})


def test_votes_are_kept_in_the_file_and_tallied_whichever_side_a_model_stood_on(tmp_path: Path) -> None:
    ballot = Ballot(tmp_path / "votes.jsonl")
    assert ballot.standings() == []
    ballot.cast("left", LEFT, RIGHT)
    ballot.cast("left", RIGHT, LEFT)
    ballot.cast("right", RIGHT, LEFT)
    ballot.cast("tie", LEFT, RIGHT)
    with ballot.path.open("a") as file:
        file.write("not a vote\n{}\n")
    assert Ballot(ballot.path).standings() == [Standing("m:base", "m@0.5", wins=2, ties=1, losses=1)]
    vote = json.loads(ballot.path.read_text().splitlines()[0])
    assert (vote["vote"], vote["prompt"], vote["left"]["answer"], vote["right"]["model"]) == (
        "left", "Why?", "Because.", "m@0.5",
    )  # fmt: skip
    assert stat.S_IMODE(ballot.path.stat().st_mode) == 0o600


@pytest.mark.parametrize("change", [{"prompt": "Another?"}, {"text": ""}, {"state": "streaming"}])
def test_a_vote_needs_two_whole_answers_to_one_prompt(tmp_path: Path, change: dict[str, str]) -> None:
    ballot = Ballot(tmp_path / "votes.jsonl")
    with pytest.raises(ValueError, match="same prompt"):
        ballot.cast("left", LEFT, RIGHT.model_copy(update=change))
    assert not ballot.path.exists()


def saved(*turns: Turn) -> Saved:
    return Saved(left=SavedSide(source="base", turns=list(turns)), right=SavedSide(source="dial", scale=0.5))


def test_what_the_browser_keeps_comes_back_and_nothing_else() -> None:
    page = saved(LEFT)
    assert read_saved(json.loads(page.model_dump_json())) == page
    for unfit in (None, {}, {"version": 2}, "text", {**page.model_dump(), "left": {"source": "evil"}}):
        assert read_saved(unfit) is None
    assert "key" not in page.model_dump_json()


def test_the_oldest_turns_give_way() -> None:
    turns = [LEFT.model_copy(update={"prompt": f"{i} {'x' * 100_000}"}) for i in range(6)]
    kept = saved(*turns).fitted()
    assert [turn.prompt[0] for turn in kept.left.turns] == ["3", "4", "5"]
    assert len(kept.model_dump_json()) <= MOST_CHARACTERS


def test_a_file_of_skills(tmp_path: Path) -> None:
    path = tmp_path / "skills.jsonl"
    lines: list[dict[str, Any]] = [
        {"skill": "a", "prompt": "1", "expected": "x", "label": "Skill A"},
        {"skill": "b", "prompt": "2", "expected": "y", "kind": "new"},
        {"skill": "a", "prompt": "3", "expected": "z"},
    ]
    path.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    first, second = read_skills(path)
    assert (first.title, first.kind, [q.prompt for q in first.prompts_sample]) == ("Skill A", "original", ["1", "3"])
    assert (second.title, second.kind) == ("b", "new")


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "holds no prompt"), ("{}", "line 1: Field required"), ("\nnot JSON", "line 2"), ('{"skill": 1', "line 1"),
     ('{"skill": "a", "prompt": "1", "expected": "x", "typo": 1}', "line 1: Extra inputs"), ("\xff", "cannot be read")],
)  # fmt: skip
def test_a_file_of_skills_with_a_fault_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "skills.jsonl"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=message):
        read_skills(path)


def test_examples_stand_in_where_a_report_has_no_sample() -> None:
    report = Report.model_validate(
        {
            "skills": [{"name": name, "kind": "original"} for name in ("sampled", "example", "nothing")],
            "examples": [{"skill": name, "prompt": "p", "expected": "e"} for name in ("sampled", "example")],
        }
    )
    report.skills[0].prompts_sample = read_skills_line("q")
    assert {s.name: [q.prompt for q in s.prompts_sample] for s in skills_of(report)} == {
        "sampled": ["q"],
        "example": ["p"],
    }
    assert skills_of(None) == []


def read_skills_line(prompt: str) -> list[Any]:
    from ui.report import Question

    return [Question(prompt=prompt, expected="e")]
