"""What the training tests share: a recipe small enough to run in seconds."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    # Two threads on busy cores are many times slower than one.
    torch.set_num_threads(1)


def mini() -> dict[str, Any]:
    """The recipe, anew for each who changes it."""
    train = {"steps": 4, "batch_size": 8, "accumulation": 2, "warmup_steps": 1, "log_every": 2}
    return {
        "name": "mini",
        "base": {
            "make": {
                "hidden_size": 16,
                "intermediate_size": 32,
                "layers": 2,
                "heads": 2,
                "stages": [
                    {"prompt_share": 1.0, "train": train | {"steps": 40, "learning_rate": 0.01}},
                    {"weights": {"compare": 2}, "prompt_share": 1.0, "train": train | {"steps": 10}},
                ],
            }
        },
        "originals": ["compare", "letters"],
        "new": "capitals",
        "expansion": {"layers": 1, "method": "dlerp"},
        "divergence": {"loss": "mse", "weight": 1.0},
        "rehearsal": {"sequences": 8, "batch_size": 4, "max_tokens": 200},
        "train": train,
        "evaluation": {"prompts": 4, "max_new_tokens": 8, "batch_size": 8, "vllm_parity": False},
        "baselines": {"full_fine_tuning": train | {"check_every": 2, "check_prompts": 4}},
        "examples": [{"skill": "capitals", "content": ["apple"]}],
    }


@pytest.fixture
def tree() -> dict[str, Any]:
    return mini()


@pytest.fixture
def recipe_file(tmp_path: Path, tree: dict[str, Any]) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path
