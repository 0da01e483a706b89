"""Checks during training: the rule of the best, what is kept and restored, resume, early stop."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import TrainerControl, TrainerState, TrainingArguments

from training.evaluation.choice import Outcome, best, retention
from training.evaluation.dial import recommend
from training.evaluation.during import SkillChecks, checks_of
from training.report import DialPoint


def test_retention_is_the_mean_share_that_is_left() -> None:
    assert retention({"a": 0.4, "b": 1.0}, {"a": 0.8, "b": 1.0}) == pytest.approx(0.75)
    assert retention({"a": 0.4, "b": 1.0}, {"a": 0.8, "b": 0.5}) == pytest.approx(0.75)  # a gain pays for no loss
    assert retention({"a": 0.4, "b": 0.0}, {"a": 0.8, "b": 0.0}) == pytest.approx(0.5)  # nothing there to lose
    assert retention({"b": 0.3}, {"b": 0.0}) == 1


@pytest.mark.parametrize(
    ("candidates", "chosen"),
    [
        ([(0.5, 0.99), (0.9, 0.95), (1.0, 0.94)], 1),  # the best new skill among those at the floor
        ([(0.9, 0.95), (0.9, 0.99), (0.9, 0.99)], 1),  # ties: more retention, then the first
        ([(0.0, 0.94), (0.7, 0.6), (1.0, 0.5)], 1),  # none at the floor: the highest minimum
        ([(0.6, 0.8), (0.8, 0.6), (0.6, 0.9)], 2),
        ([(0.1, 0.2)], 0),
    ],
)
def test_the_rule(candidates: Sequence[tuple[float, float]], chosen: int) -> None:
    assert best([Outcome(*candidate) for candidate in candidates], floor=0.95) == chosen


def point(scale: float, old: float, new: float) -> DialPoint:
    return DialPoint(scale=scale, scores={"old": old, "new": new})


def test_the_recommended_scale() -> None:
    points = [point(0, 0.8, 0.0), point(0.5, 0.8, 0.7), point(0.75, 0.78, 0.9), point(1, 0.6, 1.0)]
    found = recommend(points, ["old"], "new", floor=0.95, prompts=10)
    assert found.scale == 0.75
    assert "at least 0.95" in found.rule and found.points == points
    assert recommend(points, ["old"], "new", floor=0.5, prompts=10).scale == 1
    # The base itself would keep everything and is not offered; ties go to the model as trained.
    assert recommend([point(0, 1, 0), point(0.5, 0.5, 0.4), point(1, 0.5, 0.4)], ["old"], "new", 0.95, 10).scale == 1


class Run:
    """A training without a trainer: a weight that counts the steps, and scores that are given."""

    def __init__(self, file: Path, scores: Sequence[tuple[float, float]], **options: Any) -> None:
        self.model = nn.Linear(1, 1)
        self.model.bias.requires_grad_(False)
        self.scores = iter(scores)
        self.state = TrainerState(max_steps=10)
        self.control = TrainerControl()
        self.checks = SkillChecks(
            self.score, ["old"], "new", **({"every": 2, "floor": 0.9, "stop_below": None, "file": file} | options)
        )

    def score(self) -> dict[str, float]:
        old, new = next(self.scores)
        return {"old": old, "new": new}

    def train(self, steps: int) -> None:
        arguments = TrainingArguments(output_dir="unused")
        self.checks.on_train_begin(arguments, self.state, self.control)
        for _ in range(steps):
            if self.control.should_training_stop:
                return
            self.state.global_step += 1
            nn.init.constant_(self.model.weight, self.state.global_step)
            self.checks.on_step_end(arguments, self.state, self.control, model=self.model)

    def restore(self) -> tuple[int, float]:
        nn.init.constant_(self.model.bias, 7)
        step = self.checks.restore(self.model, self.state)
        assert self.model.bias.item() == 7  # frozen: not touched
        return step, self.model.weight.item()


SCORES = [(0.8, 0.0), (0.8, 0.3), (0.79, 0.9), (0.5, 1.0), (0.75, 0.8), (0.75, 0.85)]
"""Before training, and at steps 2, 4, 6, 8 and 10: step 4 is the best that keeps 90 % of .8."""


def test_the_best_weights_are_kept(tmp_path: Path) -> None:
    run = Run(tmp_path / "best.safetensors", SCORES)
    run.train(10)
    assert [check.step for check in checks_of(run.state.log_history)] == [0, 2, 4, 6, 8, 10]
    assert run.restore() == (4, 4.0)
    assert list(tmp_path.iterdir()) == [tmp_path / "best.safetensors"]


def test_the_last_step_is_checked(tmp_path: Path) -> None:
    run = Run(tmp_path / "best.safetensors", [(0.8, 0.0), (0.8, 0.2), (0.8, 0.5)], every=8)
    run.train(10)
    assert run.restore() == (10, 10.0)


def test_early_stop(tmp_path: Path) -> None:
    run = Run(tmp_path / "best.safetensors", SCORES, stop_below=0.7)
    run.train(10)
    assert run.state.global_step == 6
    assert run.restore() == (4, 4.0)


def test_a_resumed_training_knows_the_checks_before(tmp_path: Path) -> None:
    """The state is saved at step 5, the run killed at 7: the file is already that of a later step than is resumed."""
    scores = [*SCORES[:3], (0.79, 0.95), *SCORES[4:]]
    killed = Run(tmp_path / "best.safetensors", scores)
    killed.train(5)
    killed.state.save_to_json(str(tmp_path / "state.json"))
    killed.train(2)
    resumed = Run(tmp_path / "best.safetensors", scores[3:])
    resumed.state = TrainerState.load_from_json(str(tmp_path / "state.json"))
    resumed.train(5)
    assert [check.step for check in checks_of(resumed.state.log_history)] == [0, 2, 4, 6, 8, 10]
    assert resumed.restore() == (6, 6.0)


def test_a_file_of_another_step_is_not_taken(tmp_path: Path) -> None:
    run = Run(tmp_path / "best.safetensors", SCORES)
    run.train(10)
    run.state.log_history[2]["check/new"] = 0.1
    with pytest.raises(AssertionError):
        run.restore()


def test_weights_are_restored_exactly(tmp_path: Path) -> None:
    run = Run(tmp_path / "best.safetensors", SCORES)
    run.train(4)
    wanted = torch.randn(1, 1)
    run.model.weight.data = wanted.clone()
    run.checks._keep(run.model, run.state)
    assert run.restore() == (4, wanted.item())
