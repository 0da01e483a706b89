"""Tasks of the lm-evaluation-harness on a model in memory, against likelihoods computed one by one."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests import lm_eval_task, tiny_models
from training.evaluation import evaluate, local, read_suite


@pytest.fixture(autouse=True, scope="module")
def _installed() -> None:
    lm_eval_task.require()


@pytest.fixture(scope="module")
def dual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("lm-eval")
    return tiny_models.write_dual(tiny_models.write_base(directory / "base"), directory / "dual")


def accuracy(path: Path, records: list[dict[str, Any]], scale: float) -> float:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(path).eval(), AutoTokenizer.from_pretrained(path)

    def likelihood(question: str, choice: str) -> float:
        ids = tokenizer(f"{question} {choice}", return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            found = model(ids, control_scale=scale).logits[0].log_softmax(-1)
        own = found[:-1].gather(1, ids[0, 1:, None]).squeeze(1)
        return own[len(question) - 1 :].sum().item()  # a token a character

    right = 0
    for record in records:
        scores = [likelihood(record["question"], choice) for choice in record["choices"]]
        right += scores.index(max(scores)) == record["answer"]
    return right / len(records)


def test_a_task_at_every_scale(dual: Path, tmp_path: Path) -> None:
    task = lm_eval_task.write_task(tmp_path)
    model = local.load(dual, batch_size=8, max_new_tokens=8, window=64)
    found = evaluate(model, [read_suite(f"lm-eval:{task}")], [0.0, 1.0])
    expected = [accuracy(dual, lm_eval_task.records(task), scale) for scale in (0.0, 1.0)]
    assert [measure.value for measure in found] == expected and expected[0] != expected[1]
    for measure in found:
        assert (measure.suite, measure.part, measure.metric, measure.count) == ("choose", "", "acc", 60)
        assert measure.low is not None and measure.low < measure.value and measure.interval == "standard error"
    limited = evaluate(model, [read_suite(f"lm-eval:{task}", limit=5)], [1.0])
    assert limited[0].count == 5


def test_tasks_that_do_not_exist(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'lm-eval:arc_hardest' is not a task"):
        read_suite("lm-eval:arc_hardest")
    with pytest.raises(ValueError, match="no such file"):
        read_suite(f"lm-eval:{tmp_path / 'absent.yaml'}")
