"""What this machine cannot train is refused before anything is made, for every section of the recipe."""

from typing import Any

import pytest
import torch

from training.machine import check
from training.recipe import Recipe, RecipeError

BF16 = {"precision": "bf16"}


@pytest.mark.parametrize(
    ("processes", "section", "changes", "said"),
    [
        (1, "train", {"sharding": "fsdp"}, "^train.sharding = 'fsdp': needs an accelerator"),
        (1, "train", BF16 | {"attention": "flash_attention_2"}, "^train.attention = 'flash_attention_2': the package"),
        (3, "train", {}, "^base.make.stages.0.train.batch_size = 8: not a multiple of 3 processes"),
        (1, "stage", {"sharding": "fsdp"}, "^base.make.stages.1.train.sharding = 'fsdp': needs an accelerator"),
        (1, "baseline", {"sharding": "fsdp"}, "^baselines.others.full_fine_tuning.train.sharding = 'fsdp': needs"),
        (4, "rehearsal", {"batch_size": 4}, r"^rehearsal.batch_size = 4: not a multiple of 4 processes times .*\(2\)"),
    ],
)
def test_what_cannot_be_trained_here_is_refused(
    processes: int,
    section: str,
    changes: dict[str, Any],
    said: str,
    tree: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setattr("training.machine.is_flash_attn_2_available", lambda: False)
    monkeypatch.setattr("training.machine.is_kernels_available", lambda: False)
    check(Recipe.model_validate(tree))
    changed = {
        "train": tree["train"],
        "stage": tree["base"]["make"]["stages"][1]["train"],
        "baseline": tree["baselines"]["full_fine_tuning"],
        "rehearsal": tree["rehearsal"],
    }[section]
    changed |= changes
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    with pytest.raises(RecipeError, match=said):
        check(Recipe.model_validate(tree))
