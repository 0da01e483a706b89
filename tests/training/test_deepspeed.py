"""ZeRO 2: two processes with DeepSpeed train as two without it. Skipped where DeepSpeed is not installed; to run it,
without a GPU and without compiling anything, in an environment that has this project:

    pip install deepspeed && python -m pytest tests/training/test_deepspeed.py
"""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from cllm_model.divergence import Divergence
from tests.forked import rank_of, run_all
from tests.serving import free_port
from tests.tiny_training import TinyPool, disturb, expanded, rows, tokenizer, write_base
from training.optimise import Terms, optimise
from training.recipe import ControlTrain, Rehearsal, Train
from training.trainer import NotFinite

pytest.importorskip("deepspeed", reason="DeepSpeed is not installed; it is not one of this project's requirements")
STEPS, PROCESSES = 4, 2


class Watch(TrainerCallback):
    """Says by what is optimised, and kills the process when a step is done."""

    def __init__(self, kill_at: int = 0) -> None:
        self.kill_at = kill_at
        self.optimizer = ""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.optimizer = type(kwargs["optimizer"]).__name__

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


def train(rank: int, port: int, directory: Path, sharding: str, kill_at: int) -> None:
    from deepspeed import ops

    ops.__compatible_ops__["deepspeed_shm_comm"] = False  # a kernel for inference, which would be compiled for minutes
    with rank_of(rank, PROCESSES, port):
        model = expanded(directory / str(rank), factor=0.3)
        disturb(model)
        frozen = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
        section = ControlTrain(
            steps=STEPS, batch_size=4, accumulation=2, warmup_steps=1, log_every=1, save_every=2, sharding=sharding,
            gate_learning_rate=5e-3, weight_decay=0.1, checkpointing=True,
        )  # fmt: skip
        terms = Terms(Divergence("mse", 1.0), "completion", Rehearsal(), TinyPool(section.accumulation * PROCESSES))
        watch = Watch(kill_at)
        trained, state = optimise(
            model, tokenizer(), rows(STEPS), section, 0, directory / "run", terms, callbacks=[watch]
        )
        expected = "DeepSpeedOptimizerWrapper" if sharding == "zero2" else "AcceleratedOptimizer"
        assert watch.optimizer in ("", expected)  # none where all was trained already
        assert all(torch.equal(trained.get_parameter(name), tensor) for name, tensor in frozen.items())
        save_file(dict(trained.state_dict()), directory / f"{rank}.safetensors")
        if rank == 0:
            trained.save_pretrained(directory / "model")
            (directory / "log.json").write_text(json.dumps(state.log_history))
        # Another training in this process is sharded as its own section says.
        watch = Watch()
        other = Train(steps=1, batch_size=4)
        optimise(
            expanded(directory / str(rank)), tokenizer(), rows(1), other, 0, directory / "other", callbacks=[watch]
        )
        assert watch.optimizer == "AcceleratedOptimizer"


def start(function: Any, directory: Path, *arguments: Any) -> list[int]:
    for rank in range(PROCESSES):
        write_base(directory / str(rank) / "base")
    port = free_port()
    return run_all(function, [(rank, port, directory, *arguments) for rank in range(PROCESSES)], seconds=300)


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("zero2")
    assert start(train, directory, "zero2", 0) == [0, 0]
    return directory


def losses(directory: Path) -> list[dict[str, float]]:
    parts = ("loss", "grad_norm", "divergence", "kl", "gate", "num_tokens", "learning_rate")
    log = json.loads((directory / "log.json").read_text())
    return [{part: entry[part] for part in parts} for entry in log if "loss" in entry]


def test_it_trains_as_ddp_does_and_leaves_a_whole_checkpoint(sharded: Path, tmp_path: Path) -> None:
    assert start(train, tmp_path, "none", 0) == [0, 0]
    for mine, theirs in zip(losses(sharded), losses(tmp_path), strict=True):
        assert mine == pytest.approx(theirs, abs=1e-5)
    expected = load_file(tmp_path / "0.safetensors")
    for rank in range(PROCESSES):
        found = load_file(sharded / f"{rank}.safetensors")
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-5, msg=name)
    ids = torch.randint(5, 90, (2, 9), generator=torch.Generator().manual_seed(0))
    one, other = (AutoModelForCausalLM.from_pretrained(path / "model") for path in (sharded, tmp_path))
    torch.testing.assert_close(one(ids).logits, other(ids).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("step", [3, 4], ids=["in the middle", "when all was trained"])
def test_a_killed_training_goes_on_as_if_nothing_had_happened(step: int, sharded: Path, tmp_path: Path) -> None:
    if step == STEPS:
        assert start(train, tmp_path, "zero2", 0) == [0, 0]
    else:
        assert start(train, tmp_path, "zero2", step) == [-signal.SIGKILL] * PROCESSES
    assert start(train, tmp_path, "zero2", 0) == [0, 0]
    assert losses(tmp_path) == losses(sharded)
    expected, found = (load_file(path / "0.safetensors") for path in (sharded, tmp_path))
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def diverge(rank: int, port: int, directory: Path) -> None:
    from deepspeed import ops

    ops.__compatible_ops__["deepspeed_shm_comm"] = False
    with rank_of(rank, PROCESSES, port):
        model = expanded(directory / str(rank))
        before = {name: p.clone() for name, p in model.named_parameters()}
        model.model.layers[1].expanded_layer.mlp.down_proj.weight.register_hook(lambda grad: grad * torch.inf)
        with pytest.raises(NotFinite, match="gradient's norm is inf in update 1 of 3"):
            optimise(model, tokenizer(), rows(), Train(steps=3, batch_size=4, sharding="zero2"), 0, directory / "run")
        assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_a_gradient_that_is_no_number_is_not_applied(tmp_path: Path) -> None:
    assert start(diverge, tmp_path) == [0, 0]
