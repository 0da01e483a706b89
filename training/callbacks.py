"""What a training shows while it runs: a bar on a terminal, lines in the log elsewhere; both with the loss's parts."""

import logging
import sys
import time
from datetime import timedelta
from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

log = logging.getLogger(__name__)
SHOWN = ("loss", "divergence", "kl", "gate", "mean_token_accuracy")


class Pace:
    """Tokens per second and time left, from what was done since the training began or was resumed."""

    def __init__(self) -> None:
        self._since: tuple[float, int, float] | None = None

    def start(self, state: TrainerState, tokens: float) -> None:
        """Begin to count."""
        self._since = (time.monotonic(), state.global_step, tokens)

    def now(self, state: TrainerState, tokens: float) -> tuple[float, timedelta]:
        """Tokens per second so far, and the time that the steps left will take at the pace so far."""
        assert self._since is not None
        began, step, seen = self._since
        seconds = time.monotonic() - began
        left = seconds / max(state.global_step - step, 1) * (state.max_steps - state.global_step)
        return (tokens - seen) / max(seconds, 1e-9), timedelta(seconds=round(left))


def _tokens(state: TrainerState) -> float:
    """Tokens trained on up to the last entry of the log."""
    return next((entry["num_tokens"] for entry in reversed(state.log_history) if "num_tokens" in entry), 0.0)


class LogSteps(TrainerCallback):
    """Sends the parts of the loss, the pace and the time left to the logger, where transformers would print them."""

    def __init__(self) -> None:
        self.pace = Pace()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock."""
        self.pace.start(state, _tokens(state))

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Show one entry of the log."""
        parts = {name: value for name, value in (logs or {}).items() if name in SHOWN}
        if parts and state.is_world_process_zero:
            speed, left = self.pace.now(state, _tokens(state))
            self.show(state, parts, speed, left)

    def show(self, state: TrainerState, parts: dict[str, float], speed: float, left: timedelta) -> None:
        """Write a line."""
        shown = ", ".join(f"{name} {value:.4f}" for name, value in parts.items())
        log.info("step %s of %s: %s, %.0f tokens/s, %s left", state.global_step, state.max_steps, shown, speed, left)


class ShowBar(LogSteps):
    """The same as a bar; the time left is the bar's own."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Draw the bar."""
        super().on_train_begin(args, state, control)
        self.bar = tqdm(
            total=state.max_steps,
            initial=state.global_step,
            unit="step",
            dynamic_ncols=True,
            disable=not state.is_world_process_zero,
        )

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Move it."""
        self.bar.update()

    def show(self, state: TrainerState, parts: dict[str, float], speed: float, left: timedelta) -> None:
        """Write behind it."""
        self.bar.set_postfix({name: f"{value:.4f}" for name, value in parts.items()} | {"tokens/s": f"{speed:.0f}"})

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave it as it is."""
        self.bar.close()


def progress() -> LogSteps:
    """A bar where somebody watches a terminal, else lines in the log."""
    return ShowBar() if sys.stderr.isatty() else LogSteps()
