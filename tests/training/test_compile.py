"""Layers compiled by inductor, on the CPU, give the gradients of uncompiled ones: a wrong one would be silent."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from tests.tiny_training import Gradients, disturb, expanded, trainer, write_base
from training.precision import compile_layers

STEPS = 2


def trained(directory: Path, compiled: bool, train: dict[str, Any]) -> tuple[list[dict[str, Tensor]], list[float]]:
    """Gradients and losses of some updates with the divergence loss and rehearsal, of rows of unequal lengths."""
    write_base(directory / "base", num_hidden_layers=2)
    model = expanded(directory, [0], factor=0.3)
    disturb(model)
    if compiled:
        compile_layers(model)
    seen = Gradients()
    run = trainer(model, directory, STEPS, train=train, callbacks=[seen])
    run.train()
    return seen.found, [entry["loss"] for entry in run.state.log_history if "loss" in entry]


@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor compiles for CPUs with g++")
@pytest.mark.parametrize("checkpointing", [False, True])
def test_every_gradient_is_that_of_uncompiled_layers(checkpointing: bool, tmp_path: Path) -> None:
    torch._dynamo.reset()
    counters.clear()
    train = {"checkpointing": checkpointing}
    expected, losses = trained(tmp_path, False, train)
    found, compiled_losses = trained(tmp_path, True, train)
    # Three kinds (frozen with and without a gradient of its input, trained without), of a fixed and of any length.
    assert counters["stats"]["unique_graphs"] == 6
    assert compiled_losses == pytest.approx(losses, abs=1e-5)
    for step in range(STEPS):
        assert found[step].keys() == expected[step].keys()
        for name, gradient in expected[step].items():
            torch.testing.assert_close(found[step][name], gradient, rtol=1e-4, atol=1e-6, msg=f"{name}, update {step}")
