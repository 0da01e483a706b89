"""The retention study's own parts: its scores against generation, its statistics, its results file, one small run."""

import importlib
import itertools
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from training import data, evaluation

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
plan, results, run, skills, tables, tasks = (
    importlib.import_module(f"retention_study.{name}")
    for name in ("plan", "results", "run", "skills", "tables", "tasks")
)
retention = importlib.import_module("retention")


def test_one_forward_pass_scores_what_greedy_generation_would() -> None:
    """On the demo model, which answers some of these right and some not."""
    model = AutoModelForCausalLM.from_pretrained(ROOT / "demo" / "model")
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "demo" / "model")
    chats = [chat for skill in ("tavi", "smalltalk") for chat in data.held_out(skill, "validation", 12, seed=0)]
    rows = [data.encode(tokenizer, chat) for chat in chats]
    expected = evaluation.score(model, tokenizer, chats, 24, 128)
    assert 0 < expected < 1, "else the comparison shows nothing"
    assert tasks.exact_match(model, rows, tokenizer.pad_token_id) == pytest.approx(expected)


def test_no_content_of_the_test_split_is_trained_on() -> None:
    task = run.TASKS["foreign"]
    tests = {e.prompt for e in itertools.islice(skills.stream(task.new, "test", 0), 500)}
    others = {e.prompt for e in itertools.islice(skills.stream(task.new, "train", 0), 5000)}
    others |= {e.prompt for e in itertools.islice(skills.stream(task.new, "validation", 0), 500)}
    assert len(tests) > 300
    assert not tests & others


def test_the_interval_is_students() -> None:
    """1 to 5: mean 3, standard error sqrt(1/2), times 2.776."""
    assert tables.interval([1, 2, 3, 4, 5]) == (3, pytest.approx(1.963, abs=1e-3))
    assert tables.shown([0.5, 0.7, None]) == "0.600 ± 1.271 (2 of 3)"
    assert tables.shown([None]) == "–"


def scored(setups: list[Any], scores: list[tuple[float, float]]) -> dict[Any, Any]:
    """Results of set-ups that score these in turn: (new, originals)."""
    return {
        setup: {"score": [new, {"a": old}]} for setup, (new, old) in zip(setups, itertools.cycle(scores), strict=False)
    }


def test_the_search_prefers_retention_among_what_learns() -> None:
    setups = list(plan.search("foreign"))
    rates = plan.chosen_rates(scored(setups, [(0.5, 1.0), (0.98, 0.9), (1.0, 0.8)]), "foreign")
    assert rates["dual", "sampled"] == {"learning_rate": plan.LEARNING_RATES["dual"][1]}
    rates = plan.chosen_rates(scored(setups, [(0.5, 1.0), (0.6, 0.9), (0.7, 0.8)]), "foreign")
    assert rates["full", None] == {"learning_rate": plan.LEARNING_RATES["full"][2]}


def test_weights_of_rehearsal_are_searched_at_the_learning_rate_found() -> None:
    rates_found = scored(list(plan.search("foreign")), [(0.98, 0.8), (0.98, 0.9), (1.0, 0.8)])
    weighed = list(plan.weigh("foreign", plan.chosen_rates(rates_found, "foreign")))
    assert len(weighed) == 9 + 3 * 5
    weights_found = {s: {"score": [1.0, {"a": 0.95 if (s.kl, s.gate) == (3.0, 0.3) else 0.9}]} for s in weighed}
    tuned = plan.chosen({**weights_found, **rates_found}, "foreign")
    assert tuned["dual", "sampled"] == {"learning_rate": 1e-3, "kl": 3.0, "gate": 0.3}
    assert tuned["dual", None] == {"learning_rate": 1e-3}
    recipe = plan.recipe("foreign", 0, tuned)
    assert (recipe.kl, recipe.gate, recipe.learning_rate, recipe.split) == (3.0, 0.3, 1e-3, "test")
    assert tables.describe(recipe, tuned) == "dual+rehearsal"


def test_every_set_up_of_the_study_is_there_once_and_chooses_on_validation_only() -> None:
    tuned = {(method, source): {"learning_rate": 1e-3} for method in plan.LEARNING_RATES for source in plan.SOURCES}
    tested = [*plan.main("foreign", 0, tuned), *plan.ablation("foreign", 0, tuned), *plan.scarce("foreign", 0, tuned)]
    setups = [*plan.search("foreign"), *tested]
    assert len({setup.key for setup in setups}) == len(setups)
    chosen_by = [*plan.search("foreign"), *plan.weigh("foreign", tuned)]
    assert {(setup.split, setup.base) for setup in chosen_by} == {("validation", plan.SEARCH_BASE)}
    assert {setup.split for setup in tested} == {"test"}
    assert plan.SEARCH_BASE not in plan.BASES


def test_a_finished_run_is_not_run_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few real updates on a base of five; a line that a kill cut off counts as not run."""
    monkeypatch.setattr(skills, "PROMPTS", 4)
    file = tmp_path / "results.jsonl"
    setup = run.Setup("foreign", 0, "dual", 1e-3, **retention.QUICK, gate_learning_rate=5e-3, source="random")
    retention.carry_out([setup], file, tmp_path)
    assert "1 runs of 1 left, 1 bases: about" in capsys.readouterr().out
    line = file.read_text()
    [(found, result)] = results.read(file).items()
    assert found == setup
    assert result["trainable"] == 443_908
    assert set(result["dial"]) == {str(scale) for scale in run.SCALES}
    assert result["dial"]["0.0"] == result["base"]
    assert result["dial"]["1.0"] == result["score"]
    retention.carry_out([setup], file, tmp_path)
    assert capsys.readouterr().out == ""
    assert file.read_text() == line
    file.write_text(line + line[:50])
    assert list(results.read(file)) == [setup]
    tuned = {("dual", "sampled"): {"learning_rate": 1e-3}}
    table = tables.main_table(tables.by_set_up(results.read(file), [setup], tuned))
    assert "dual+rehearsal" in table and "443,908" in table
