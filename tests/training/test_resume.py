"""A run that was killed and resumed ends as an unbroken one would have: the same log, bit-equal weights."""

import json
import os
import resource
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tests.forked import run
from tests.tiny_training import disturb, expanded, rows, trainer
from training import checkpoints
from training.trainer import ControlTrainer

STEPS = 7
TIMES = {"train_runtime", "train_samples_per_second", "train_steps_per_second"}


class AtStep(TrainerCallback):
    """Ends the training or the process, or leaves it a disk that takes 1000 more bytes a file, when a step is done."""

    def __init__(self, step: int, what: str) -> None:
        self.step = step
        self.what = what

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step != self.step:
            return
        if self.what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.what == "stop":
            control.should_training_stop = True
        elif self.what == "kill in save":
            _kill_in_save()
        elif self.what == "disk full":
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))


def _kill_in_save() -> None:
    """Let the next `torch.save`, of the optimizer, write half a file and be killed."""

    def half(state: object, path: str) -> None:
        Path(path).write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)

    torch.save = half


def train(directory: Path, results: Path, step: int = 0, what: str = "") -> None:
    """Train to the end from the newest checkpoint, if there is one. The data are three updates: two epochs and more."""
    torch.set_num_threads(1)
    model = expanded(directory, factor=0.3)
    disturb(model)
    settings = {"accumulation": 2, "batch_size": 4}
    made = trainer(
        model, directory, STEPS, train=settings, save_every=2, train_dataset=rows(3), gate_learning_rate=0.01,
        callbacks=[AtStep(step, what)],
    )  # fmt: skip
    made.fit(checkpoints.newest(directory / "run", 1))
    save_file(dict(model.state_dict()), results.with_suffix(".safetensors"))
    results.write_text(json.dumps(made.state.log_history))


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("unbroken")
    assert run(train, directory, directory / "results.json") == 0
    return directory


def names(directory: Path) -> set[str]:
    return {path.name for path in (directory / "run").iterdir()}


def assert_same(directory: Path, unbroken: Path) -> None:
    mine, theirs = (json.loads((path / "results.json").read_text()) for path in (directory, unbroken))
    assert [entry["step"] for entry in mine] == [*range(1, STEPS + 1), STEPS]
    assert [entry | dict.fromkeys(TIMES) for entry in mine[:-1]] == [
        entry | dict.fromkeys(TIMES) for entry in theirs[:-1]
    ]
    weights, expected = (load_file(path / "results.safetensors") for path in (directory, unbroken))
    assert all(torch.equal(weights[name], tensor) for name, tensor in expected.items())


def test_only_the_newest_checkpoints_are_kept_and_hold_what_trains(unbroken: Path) -> None:
    assert names(unbroken) == {"checkpoint-6", "checkpoint-7"}
    held = load_file(unbroken / "run" / "checkpoint-6" / "model.safetensors")
    assert held and all(".expanded_layer." in name or ".interpolator." in name for name in held)


@pytest.mark.parametrize(
    ("what", "step", "code", "left"),
    [
        ("kill", 1, -signal.SIGKILL, set()),
        ("kill", 3, -signal.SIGKILL, {"checkpoint-2"}),
        ("kill", 5, -signal.SIGKILL, {"checkpoint-2", "checkpoint-4"}),
        ("kill in save", 3, -signal.SIGKILL, {"checkpoint-2", ".writing"}),
        ("disk full", 3, 1, {"checkpoint-2"}),
    ],
)
def test_a_broken_run_goes_on_as_if_nothing_had_happened(
    what: str, step: int, code: int, left: set[str], unbroken: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results.json"
    assert run(train, tmp_path, results, step, what) == code
    assert not results.exists()
    assert (names(tmp_path) if (tmp_path / "run").exists() else set()) == left
    assert run(train, tmp_path, results) == 0
    assert_same(tmp_path, unbroken)
    assert names(tmp_path) == {"checkpoint-6", "checkpoint-7"}


def test_a_finished_run_has_nothing_left_to_train(unbroken: Path, tmp_path: Path) -> None:
    shutil.copytree(unbroken / "run", tmp_path / "run")
    assert run(train, tmp_path, tmp_path / "results.json") == 0
    weights, expected = (load_file(path / "results.safetensors") for path in (tmp_path, unbroken))
    assert all(torch.equal(weights[name], tensor) for name, tensor in expected.items())


def test_a_run_that_was_ended_early_is_finished(tmp_path: Path) -> None:
    def made(name: str) -> ControlTrainer:
        return trainer(expanded(tmp_path / name), tmp_path, STEPS, save_every=2, callbacks=[AtStep(4, "stop")])

    (tmp_path / "first").mkdir()
    (tmp_path / "again").mkdir()
    first, again = made("first"), made("again")
    first.fit()
    again.fit(checkpoints.newest(tmp_path / "run", 1))
    assert first.state.global_step == again.state.global_step == 4
    weights = dict(again.model.named_parameters())
    assert all(torch.equal(weights[name], tensor) for name, tensor in first.model.named_parameters())


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.pt", "files.json"])
def test_a_copy_that_lost_something_is_not_taken_for_whole(file: str, unbroken: Path, tmp_path: Path) -> None:
    shutil.copytree(unbroken / "run", tmp_path / "run")
    assert checkpoints.newest(tmp_path / "run", 1) == tmp_path / "run" / "checkpoint-7"
    damaged = tmp_path / "run" / "checkpoint-7" / file
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert checkpoints.newest(tmp_path / "run", 1) == tmp_path / "run" / "checkpoint-6"


def test_another_number_of_processes_is_refused(unbroken: Path) -> None:
    with pytest.raises(ValueError, match="checkpoint-7: written by 1 processes, and 2 resume"):
        checkpoints.newest(unbroken / "run", 2)


def test_a_checkpoint_of_another_training_is_refused(unbroken: Path, tmp_path: Path) -> None:
    other = trainer(expanded(tmp_path, [0, 3]), tmp_path)
    with pytest.raises(ValueError, match="not of this training: model.layers"):
        other.fit(unbroken / "run" / "checkpoint-6")
