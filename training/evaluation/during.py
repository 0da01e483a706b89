"""Scores of old and new skills while a model is trained, and the weights of the best check.

Checks are kept in the trainer's own log, so a resumed training knows those before it was killed. Greedy decoding draws
no random numbers: a training with checks takes the same steps as one without.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from training.evaluation.choice import Outcome, best, retention

log = logging.getLogger(__name__)
_LOGGED = "check/"


class Check(NamedTuple):
    """Scores of one check, by skill; step 0 is before the first update."""

    step: int
    scores: dict[str, float]


def checks_of(log_history: Sequence[Mapping[str, Any]]) -> list[Check]:
    """The checks in a trainer's log, in their order."""
    found = []
    for entry in log_history:
        scores = {key.removeprefix(_LOGGED): value for key, value in entry.items() if key.startswith(_LOGGED)}
        if scores:
            found.append(Check(int(entry["step"]), scores))
    return found


def outcomes(checks: Sequence[Check], originals: Sequence[str], new: str) -> list[Outcome]:
    """What each check but the first, which is from before training, achieved."""
    before, *later = checks
    kept = {skill: before.scores[skill] for skill in originals}
    return [Outcome(check.scores[new], retention(check.scores, kept)) for check in later]


class SkillChecks(TrainerCallback):
    """Scores skills before training and every so many steps, keeps the best weights, and may end the training.

    Every process scores, as sharded models must run on all of them together; the first one writes.

    Args:
        score: Scores of all skills of the model as it is now, on prompts of the validation split.
        originals: Skills that are to be kept.
        new: Skill that is learned.
        every: Steps between two checks; the last step is checked as well.
        floor: Retention that the best check must have, see `training.evaluation.choice`.
        stop_below: End the training at the first check whose retention is lower; None: never.
        file: Where the trainable weights of the best check so far are kept.
    """

    def __init__(
        self,
        score: Callable[[], dict[str, float]],
        originals: Sequence[str],
        new: str,
        every: int,
        floor: float,
        stop_below: float | None,
        file: Path,
    ) -> None:
        self.score = score
        self.originals = originals
        self.new = new
        self.every = every
        self.floor = floor
        self.stop_below = stop_below
        self.file = file

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Score the model as it is before training, unless a training is resumed."""
        if not checks_of(state.log_history):
            self._check(state)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Score every so many steps."""
        if state.global_step % self.every and state.global_step != state.max_steps:
            return control
        self._check(state)
        found = outcomes(checks_of(state.log_history), self.originals, self.new)
        if best(found, self.floor) == len(found) - 1:
            self._keep(kwargs["model"], state)
        if self.stop_below is not None and found[-1].retention < self.stop_below:
            log.warning("retention %.3f is below %g: training ends here", found[-1].retention, self.stop_below)
            control.should_training_stop = True
        return control

    def _check(self, state: TrainerState) -> None:
        scores = self.score()
        state.log_history.append({"step": state.global_step} | {f"{_LOGGED}{k}": v for k, v in scores.items()})
        log.info("step %s: %s", state.global_step, ", ".join(f"{k} {v:.3f}" for k, v in scores.items()))

    def _keep(self, model: nn.Module, state: TrainerState) -> None:
        """Write what trains beside its place, then rename it.

        A resumed training may find the file of a step that it has not reached again: it takes the same steps as the
        training that was killed, so it will write the same file again, and nothing reads it before.
        """
        tensors = {name: _whole(tensor.detach()).cpu() for name, tensor in _trained(model).items()}
        if state.is_world_process_zero:
            beside = self.file.with_name(f".{self.file.name}.part")
            save_file(tensors, beside, {"step": str(state.global_step)})
            beside.replace(self.file)

    def restore(self, model: nn.Module, state: TrainerState) -> int:
        """Give a model the weights of the best check, and return that check's step."""
        checks = checks_of(state.log_history)
        chosen = checks[1 + best(outcomes(checks, self.originals, self.new), self.floor)].step
        with safe_open(self.file, framework="pt") as kept, torch.no_grad():
            assert kept.metadata()["step"] == str(chosen)
            for name, parameter in _trained(model).items():
                parameter.copy_(_like(kept.get_tensor(name).to(parameter.device), parameter))
        return chosen


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _like(tensor: Tensor, other: Tensor) -> Tensor:
    return distribute_tensor(tensor, other.device_mesh, other.placements) if isinstance(other, DTensor) else tensor
