"""Runs lm-eval on both sides, the server by `local-completions` and the weights by `hf`, and writes what each found.

Runs in the server's environment, with lm-eval beside it on PYTHONPATH: `evaluate.py BASE_URL OUTPUT`. The key is read
from OPENAI_API_KEY, by lm-eval.
"""

import json
import sys
from pathlib import Path
from typing import Any

import lm_eval
from lm_eval.tasks import TaskManager

import cllm_model  # noqa: F401  registers the model, which lm-eval loads by AutoModelForCausalLM

MODEL = "demo/model"
CONTEXT = 256
SCALES = {"demo": 1.0, "demo:base": 0.0, "demo@0.5": 0.5}


def evaluate(tasks: TaskManager, backend: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the scores of each task, and what the backend said to each of its items."""
    found = lm_eval.simple_evaluate(
        backend, arguments, ["choose", "generate"], task_manager=tasks, batch_size=1, apply_chat_template=True
    )
    items = {
        task: [sample["resps"] for sample in sorted(samples, key=lambda sample: sample["doc_id"])]
        for task, samples in found["samples"].items()
    }
    return {"scores": found["results"], "items": items}


def main(base_url: str, output: str) -> None:
    """Evaluate the demo at three strengths, from both sides."""
    tasks = TaskManager(include_path=str(Path(__file__).parent), include_defaults=False)
    server = {
        "base_url": f"{base_url}/completions",
        "tokenizer": MODEL,
        "tokenizer_backend": "huggingface",
        "max_length": CONTEXT,
        "num_concurrent": 8,
    }
    weights = {"pretrained": MODEL, "dtype": "float32", "device": "cpu"}
    found = {
        model_id: {
            "server": evaluate(tasks, "local-completions", server | {"model": model_id}),
            "weights": evaluate(tasks, "hf", weights | {"control_scale": scale}),
        }
        for model_id, scale in SCALES.items()
    }
    Path(output).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
