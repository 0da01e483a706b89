"""`cllm eval` of a running server finds what it finds in the same checkpoint, loaded by transformers."""

import json
from pathlib import Path
from typing import Any

import pytest

import cllm
from tests import lm_eval_task
from training import skills
from training.measure import Measure, Results

SCALES = "0,0.5,1"


def evaluate(model: object, output: Path, *options: object) -> dict[tuple[str, str, float], Measure]:
    with pytest.raises(SystemExit) as end:
        cllm.main(["eval", str(model), "--output", str(output), "--scales", SCALES, *map(str, options)])
    assert not end.value.code
    found = Results.model_validate_json(output.read_text())
    return {(f"{m.suite}/{m.part}", m.metric, m.scale): m for m in found.measures}


@pytest.fixture
def suites(tmp_path: Path) -> list[Path]:
    examples = [example for name in ("tavi", "add", "reverse") for example in skills.unique(name, "validation", 4, 0)]
    asked: dict[str, list[dict[str, Any]]] = {
        "chats": [
            {"messages": [{"role": "user", "content": e.prompt}, {"role": "assistant", "content": e.answer}]}
            for e in examples
        ],
        "completions": [{"prompt": f"<|user|>{e.prompt}<|assistant|>", "completion": e.answer} for e in examples],
        "texts": [{"text": e.prompt, "domain": e.skill} for e in examples],
    }
    for name, records in asked.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return [tmp_path / f"{name}.jsonl" for name in asked]


def test_a_server_and_its_checkpoint(server: Any, suites: list[Path], tmp_path: Path) -> None:
    """A window of 20 tokens cuts the texts on both sides alike."""
    options = ["--suite", ",".join(map(str, suites)), "--window", 20, "--max-new-tokens", 60]
    served = evaluate(server.root, tmp_path / "served.json", *options)
    local = evaluate(server.model, tmp_path / "local.json", *options)
    assert served.keys() == local.keys() and len(served) == 3 * (1 + 1 + 3 * 2)
    for key, measure in served.items():
        assert measure.value == pytest.approx(local[key].value, rel=1e-4), key
        assert measure.count == local[key].count
    known = Results.model_validate_json((tmp_path / "served.json").read_text())
    assert known.backend == "server"
    assert known.checkpoint == Results.model_validate_json((tmp_path / "local.json").read_text()).checkpoint
    values = {scale: served["chats/", "exact_match", scale].value for scale in (0.0, 1.0)}
    assert values[0.0] < values[1.0]  # the base does not speak Tavi


def test_a_scale_that_the_server_does_not_allow(
    server: Any, suites: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        cllm.main(["eval", server.url, "--suite", str(suites[0]), "--scales", "0,2.5"])
    assert end.value.code == 2
    assert "scales: 2.5 is out of range" in capsys.readouterr().err


def test_an_lm_eval_task(server: Any, tmp_path: Path) -> None:
    lm_eval_task.require()
    task = f"lm-eval:{lm_eval_task.write_task(tmp_path)}"
    served = evaluate(server.url, tmp_path / "served.json", "--suite", task, "--tokenizer", server.model)
    local = evaluate(server.model, tmp_path / "local.json", "--suite", task)
    assert {key: measure.value for key, measure in served.items()} == {
        key: measure.value for key, measure in local.items()
    }
    assert len(served) == 3
