"""The report of a run: its file stays readable, its page shows what is in it and nothing else."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

import cllm
from cllm_model.checkpoint import checkpoint_hash
from tests.browser import chromium, open_page  # noqa: F401 - a fixture
from training import report
from training.recipe import load
from training.report.differences import differences
from training.report.page import html, write_html
from training.report.schema import Report

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "demo" / "report.json"
HOSTILE = '<script>alert("$x$ & y")</script>'


def full() -> dict[str, Any]:
    """The demo's report with everything that a report may have, and names that would break a page."""
    tree = json.loads(DEMO.read_text())
    names = [skill["name"] for skill in tree["skills"]]
    points = [{"scale": s / 4, "scores": {name: s / 4 for name in names}} for s in range(5)]
    for skill in tree["skills"]:
        skill["scores"] = {"base": 0.97, "control": 0.92, "full_fine_tuning": 0.46}
    tree["skills"][0]["scores"]["base"] = 0.99
    tree["skills"][0]["label"] = tree["recipe"]["name"] = HOSTILE
    tree["skills"][0]["baselines"] = {"lora": 0.25}
    tree["examples"][0]["answers"]["base"] = HOSTILE
    tree["training"] |= {
        "steps": 600,
        "checks": [{"step": step, "scores": dict.fromkeys(names, 0.5)} for step in (0, 100, 200)],
        "best_step": 100,
        "best_rule": HOSTILE,
        "base_loss_curve": [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 1.0}],
        "rehearsal_samples": [HOSTILE],
    }
    tree |= {
        "dial": points,
        "recommended_scale": 0.75,
        "recommendation": {"scale": 0.75, "rule": "the rule", "prompts": 10, "points": points},
        "checks_skipped": {"vllm_at_scale_0": HOSTILE},
        "measures": [{"suite": HOSTILE, "metric": "bits_per_byte", "scale": 1, "value": 1.5, "count": 3}],
        "data": {HOSTILE: HOSTILE},
        "git_commit": "0123abc",
    }
    return tree


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "report.json").write_text(json.dumps(full()))
    return tmp_path / "run" / "report.json"


def kept(old: Any, new: Any) -> bool:
    """Whether `new` is `old` with more fields at most."""
    if isinstance(old, dict):
        return all(key in new and kept(value, new[key]) for key, value in old.items())
    if isinstance(old, list):
        return len(old) == len(new) and all(map(kept, old, new))
    return bool(old == new)


# The file


def test_the_shipped_report_is_about_the_shipped_files() -> None:
    """The checkpoint beside it, made in one piece by the recipe that is shipped."""
    shipped = json.loads(DEMO.read_text())
    recipe = load(ROOT / "training" / "recipes" / "demo.yaml")
    assert shipped["checkpoint"] == checkpoint_hash(DEMO.parent / "model")
    assert kept(shipped["recipe"], recipe.model_dump(mode="json"))
    assert not shipped["training"]["base_reused"]


def test_the_shipped_report_is_read_and_kept(tmp_path: Path) -> None:
    """Fields of schema 1 keep their names and values; what is new is added."""
    before = json.loads(DEMO.read_text())
    report.write(report.read(DEMO), tmp_path / "report.json")
    after = json.loads((tmp_path / "report.json").read_text())
    assert kept(before, after)
    assert report.read(tmp_path / "report.json") == report.read(DEMO)


def test_scores_have_intervals() -> None:
    skill = Report.model_validate(full()).skills[0]
    assert (skill.prompts, skill.scores.base) == (100, 0.99)
    # R: binom::binom.confint(c(99, 25), 100, methods = "wilson")
    assert skill.intervals["base"] == pytest.approx((0.9455138, 0.9982326), abs=1e-6)
    assert skill.intervals["lora"] == pytest.approx((0.1754521, 0.3430446), abs=1e-6)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": 2}, "schema: "),
        ({"surprise": 1}, "surprise: "),
        ({"checkpoint": "xyz"}, "checkpoint: "),
    ],
)
def test_other_reports_are_refused(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(json.dumps(full() | change))
    with pytest.raises(ValueError, match=rf"report\.json: {said}"):
        report.read(tmp_path)


def test_the_commit_is_the_checkouts() -> None:
    """Where the code is in a checkout; an installed wheel has none."""
    inside = subprocess.run(["git", "ls-files", "training/report/file.py"], cwd=ROOT, capture_output=True, text=True)
    found = report.git_commit()
    if inside.stdout.strip():
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
        assert found is not None and found.removesuffix(" with changes") == head.stdout.strip()
    else:
        assert found is None


# The page


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_in_a_browser(dark: bool, file: Path, tmp_path: Path, chromium: Any) -> None:  # noqa: F811
    """Nothing is fetched or run, nothing is wider than a phone, text has the colour of the reader's scheme."""
    write_html([("one", report.read(file))], tmp_path / "one.html")
    with open_page(chromium, (tmp_path / "one.html").as_uri(), width=400, dark=dark) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == 400
        assert page.locator("tbody tr td").first.inner_text() == HOSTILE
        assert page.locator("script").count() == 0
        titles = page.locator("figcaption").all_inner_texts()
        assert titles[:2] == ["Before and after", "Skill by control scale"] and len(titles) == 9
        label = page.locator("figure svg text", has_text="alert").first
        assert label.text_content() == HOSTILE
        colour = label.evaluate("element => getComputedStyle(element).fill")
        assert colour == ("rgb(255, 255, 255)" if dark else "rgb(0, 0, 0)")
        assert page.locator("figure svg").first.bounding_box()["width"] > 300


def test_the_page_says_what_the_report_says(file: Path) -> None:
    page = html([("one", report.read(file))])
    for said in (
        "0.95–1.00",
        "0.18–0.34",
        "lora",
        "0123abc",
        "validation split, 10 prompts",
        "the rule",
        "bits_per_byte",
    ):
        assert said in page
    assert "<script" not in page
    assert "left out: &lt;script&gt;" in page


def test_figures_of_one_page_do_not_share_ids(file: Path) -> None:
    page = html([("one", report.read(file)), ("other", report.read(file))])
    found = re.findall(r'\bid="([^"]*)"', page)
    assert len(found) == len(set(found)) > 200
    assert set(re.findall(r'(?:href="#|url\(#)([^")]*)', page)) <= set(found)


def test_where_recipes_differ() -> None:
    first = {"train": {"steps": 1, "rate": 2}, "at": [1, 2], "new": None}
    second = {"train": {"steps": 5, "rate": 2}, "at": [1, 3], "rehearsal": {"kl": 1}}
    assert differences(first, second) == {
        "train.steps": ("1", "5"),
        "at": ("[1, 2]", "[1, 3]"),
        "new": ("null", "–"),
        "rehearsal.kl": ("–", "1"),
    }


# The command


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as end:
        cllm.main(["report", *map(str, arguments)])
    return int(end.value.code or 0)


def test_a_summary(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(file.parent) == 0
    shown = capsys.readouterr().out
    assert "recommended scale 0.75 (validation split)" in shown and "weights of step 100 of 600" in shown
    assert "check vllm_at_scale_0: left out" in shown
    row = next(line for line in shown.splitlines() if line.startswith("Add two numbers"))
    assert row.split() == "Add two numbers 100 0.97 [0.92, 0.99] 0.92 [0.85, 0.96] 0.46 [0.37, 0.56] –".split()
    mean = next(line for line in shown.splitlines() if line.startswith("mean of the original skills"))
    assert mean.split()[-4:] == ["0.97", "0.92", "0.46", "–"]


def test_two_runs_side_by_side(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = full()
    tree["recipe"] = tree["recipe"] | {"name": "second", "seed": 1}
    tree["skills"] = tree["skills"][1:]
    tree["dial"] = []
    (tmp_path / "second.json").write_text(json.dumps(tree))
    assert run(DEMO, tmp_path / "second.json", "--output", tmp_path / "both.html") == 0
    shown = capsys.readouterr().out
    assert "demo: base" in shown and "second: base" in shown
    row = next(line for line in shown.splitlines() if line.startswith("Reverse a word"))
    assert row.split()[-4:] == ["–"] * 4
    assert next(line for line in shown.splitlines() if line.startswith("seed")).split() == ["seed", "0", "1"]
    page = (tmp_path / "both.html").read_text()
    assert page.count("<svg") == 8 + 8 and "Where the recipes differ" in page
    assert page.count("not measured") == 2


def test_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "absent") == 2
    assert "absent" in capsys.readouterr().err
    (tmp_path / "report.json").write_text("{}")
    assert run(tmp_path) == 2
    assert "report.json: created: Field required" in capsys.readouterr().err
    assert run(DEMO, "--output", tmp_path / "nowhere" / "page.html") == 2
    assert "there is no directory" in capsys.readouterr().err
