"""A task of the lm-evaluation-harness from local files: questions with four answers to choose from."""

import json
import random
from pathlib import Path

import pytest
import yaml

NEEDS = "needs the optional extra 'eval' (pip install '.[eval]'): the harness is not part of the locked environment"


def write_task(directory: Path, count: int = 60) -> Path:
    """Write the task `choose`, and return its YAML file."""
    rng = random.Random(0)
    words = "fox dog cat bird king child queen doctor small old red happy".split()
    records = [
        {"question": " ".join(rng.sample(words, 3)), "choices": rng.sample(words, 4), "answer": rng.randrange(4)}
        for _ in range(count)
    ]
    data = directory / "choose.jsonl"
    data.write_text("".join(json.dumps(record) + "\n" for record in records))
    task = {
        "task": "choose",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": str(data)},
        "output_type": "multiple_choice",
        "test_split": "train",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "choices",
        "doc_to_target": "answer",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    (directory / "choose.yaml").write_text(yaml.safe_dump(task))
    return directory / "choose.yaml"


def records(task: Path) -> list[dict]:
    return [json.loads(line) for line in task.with_suffix(".jsonl").read_text().splitlines()]


def require() -> None:
    pytest.importorskip("lm_eval", reason=NEEDS)
