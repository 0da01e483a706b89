"""One run of the retention study: a set-up is trained on one base and scored. Knows nothing of the other runs.

A run takes place in a process of its own, forked from one that has imported everything, so that the growth of its
resident set is its own. CPU time is that of the process, on one thread; a busy machine still slows it down.
"""

import dataclasses
import hashlib
import json
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    PreTrainedModel,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from cllm_model.divergence import Divergence
from cllm_model.merge import merge
from cllm_model.modeling import ControlLLMForCausalLM
from retention_study.language import Language
from retention_study.skills import Skills, foreign
from retention_study.tasks import Score, Task, merit
from training.arguments import sft_config
from training.methods import Control, Full, Half, LoRA, Method, Partial, lines, trainable_parameters, wise_ft
from training.recipe import Expansion, Rehearsal, Train
from training.rehearsal import Pool, build
from training.skills import Split
from training.trainer import ControlTrainer

TASKS: dict[str, Task] = {
    task.name: task
    for task in (Skills("foreign", foreign(marker=True)), Skills("unmarked", foreign(marker=False)), Language())
}
SCALES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
SHARES = (0.5, 0.7, 0.8, 0.9)
"""Of WiSE-FT."""
FIRSTS = (0.0, 0.25, 0.5, 0.75)
"""Of LiNeS: what is kept of the lowest layer's training."""
PROBED = 25
"""Updates between two looks at the new skill, on its validation split."""


@dataclass(frozen=True)
class Setup:
    """All that a run depends on; equal set-ups give equal scores."""

    task: str
    base: int
    method: str
    learning_rate: float
    split: Split = "test"
    layers: int = 4
    gate_learning_rate: float | None = None
    initial_factor: float = -1.0
    divergence: float = 0.0
    source: str | None = None
    pool: int = 4096
    rehearsed: int = 16
    kl: float = 1.0
    gate: float = 1.0
    replayed: float = 0.0
    steps: int = 300
    batch_size: int = 32
    base_steps: int = 1000

    @property
    def key(self) -> str:
        """Name of the set-up."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    @property
    def name(self) -> str:
        """Method and what it is combined with."""
        return self.method + ("+rehearsal" if self.source else "") + ("+replay" if self.replayed else "")


def method_of(setup: Setup) -> Method:
    """The method of a set-up."""
    expansion = Expansion(layers=setup.layers, method="dlerp", initial_factor=setup.initial_factor)
    known: dict[str, Method] = {
        "full": Full(),
        "partial": Partial(setup.layers),
        "lora": LoRA(),
        "hft": Half(),
        "stack": Control(Expansion(kind="stack", layers=setup.layers)),
        "dual": Control(expansion),
        "lerp": Control(expansion.model_copy(update={"method": "lerp"})),
    }
    return known[setup.method]


def base_directory(setup: Setup, cache: Path) -> Path:
    """Where a set-up's base is, or will be."""
    return cache / f"{TASKS[setup.task].base}-{setup.base}-{setup.base_steps}"


def is_whole(base: Path) -> bool:
    """Whether a base is there; its tokenizer is written last."""
    return (base / "tokenizer.json").exists()


def base_of(setup: Setup, cache: Path) -> Path:
    """The directory of a set-up's base, trained if it is not there."""
    out = base_directory(setup, cache)
    if not is_whole(out):
        train = Train(steps=setup.base_steps, batch_size=64, learning_rate=3e-3, warmup_steps=100, log_every=100)
        TASKS[setup.task].make_base(setup.base, out, train)
    return out


def pool_of(setup: Setup, base: Path, recipe: Rehearsal) -> Path:
    """The file of a set-up's rehearsal pool, built if it is not there."""
    file = base / f"pool-{setup.source}-{setup.pool}.safetensors"
    if not file.exists():
        teacher = AutoModelForCausalLM.from_pretrained(base)
        build(teacher, TASKS[setup.task].tokenizer, recipe, setup.base, file)
    return file


def rehearsal_of(setup: Setup) -> Rehearsal | None:
    """The recipe's section of a set-up; None if nothing is rehearsed."""
    if setup.source is None:
        return None
    task = TASKS[setup.task]
    return Rehearsal(
        sources=[setup.source],  # type: ignore[list-item]
        alphabet=task.alphabet if setup.source == "random" else None,
        sequences=setup.pool,
        batch_size=setup.rehearsed,
        max_tokens=task.max_tokens,
        kl=setup.kl,
        gate=setup.gate,
    )


class Watch(TrainerCallback):
    """CPU time of each update, and the scores at the first look that finds the new skill learned."""

    def __init__(self, look: Callable[[], float], found: Callable[[], Score], learned: float) -> None:
        self.look, self.found, self.learned = look, found, learned
        self.seconds: list[float] = []
        self.curve: dict[int, float] = {}
        self.first: tuple[int, Score] | None = None

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock."""
        self._start = time.process_time()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Stop it, and look at the skill now and then."""
        self.seconds.append(time.process_time() - self._start)
        if state.global_step % PROBED == 0:
            self.curve[state.global_step] = self.look()
            if self.first is None and self.curve[state.global_step] >= self.learned:
                self.first = state.global_step, self.found()


def prepare(setup: Setup, cache: Path) -> dict[str, Any]:
    """Make the base and the pool of a set-up, unless they are there."""
    base, recipe = base_of(setup, cache), rehearsal_of(setup)
    if recipe is not None:
        pool_of(setup, base, recipe)
    return {}


def carry_out(setup: Setup, cache: Path) -> dict[str, Any]:
    """Train and score a set-up; returns what is known of it, ready for JSON."""
    begun = time.process_time()
    task, recipe = TASKS[setup.task], rehearsal_of(setup)
    base = base_of(setup, cache)
    pool = None
    if recipe is not None:
        pad = task.tokenizer.pad_token_id
        pool = Pool(pool_of(setup, base, recipe), setup.rehearsed, 1, pad, setup.base)
    train = Train(
        steps=setup.steps, batch_size=setup.batch_size, learning_rate=setup.learning_rate, warmup_steps=20, log_every=50
    )
    rows = task.rows(setup.steps * setup.batch_size, setup.base, setup.replayed, setup.batch_size)
    resident = _resident()
    torch.manual_seed(setup.base)
    with tempfile.TemporaryDirectory() as scratch:
        method = method_of(setup)
        model = method.prepare(base, Path(scratch))
        watch = Watch(
            lambda: task.score_new(model, "validation", setup.base),
            lambda: task.score(model, setup.split, setup.base),
            task.learned,
        )
        trainer = ControlTrainer(
            model=model,
            divergence=Divergence("mse", setup.divergence) if setup.divergence else None,
            rehearsal=recipe,
            pool=pool,
            gate_learning_rate=setup.gate_learning_rate,
            args=sft_config(train, setup.base, Path(scratch)),
            train_dataset=rows,
            processing_class=task.tokenizer,
            callbacks=[watch],
        )
        trainer.train()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        trained = trainable_parameters(model)
        model = method.finish(model)
        found = {
            "score": task.score(model, setup.split, setup.base),
            "first": watch.first,
            "curve": watch.curve,
            "losses": [e for e in trainer.state.log_history if "loss" in e],
            "trainable": trained,
            "cpu_ms_per_step": 1000 * statistics.median(watch.seconds),
            "peak_bytes": peak - resident,
            **_afterwards(setup, task, base, model, Path(scratch)),
        }
    found["cpu_seconds"] = {"train": sum(watch.seconds), "all": time.process_time() - begun}
    return found


def _afterwards(setup: Setup, task: Task, base: Path, model: PreTrainedModel, scratch: Path) -> dict[str, Any]:
    """What can be made of a trained model without more training: the dial, a merge, averages with the base."""
    start = AutoModelForCausalLM.from_pretrained(base)
    found: dict[str, Any] = {"base": task.score(start, setup.split, setup.base)}
    if isinstance(model, ControlLLMForCausalLM) and setup.method != "stack":
        found["dial"] = {scale: task.score(model, setup.split, setup.base, control_scale=scale) for scale in SCALES}
        model.save_pretrained(scratch / "trained")
        merge(scratch / "trained", scratch / "merged")
        merged = AutoModelForCausalLM.from_pretrained(scratch / "merged")
        found["merged"] = task.score(merged, setup.split, setup.base)
    if setup.method == "full":
        for name, change, values in (("wise_ft", wise_ft, SHARES), ("lines", lines, FIRSTS)):
            tried = {value: task.score(change(start, model, value), "validation", setup.base) for value in values}
            best = max(values, key=lambda value: merit(tried[value], task.wanted))
            score = task.score(change(start, model, best), setup.split, setup.base)
            found[name] = {"validation": tried, "chosen": best, "score": score}
    return found


def _resident() -> int:
    """Bytes of memory that the process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def in_process(setup: Setup, cache: Path) -> dict[str, Any]:
    """Carry out a set-up in a process of its own; what it needs is made in another, whose memory does not count."""
    forked(lambda: prepare(setup, cache))
    return forked(lambda: carry_out(setup, cache))


def forked(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a function returns in a forked process, as JSON makes it.

    Raises:
        RuntimeError: The process ended without a result.
    """
    receiver, sender = multiprocessing.Pipe(duplex=False)
    worker = multiprocessing.get_context("fork").Process(target=lambda: sender.send(json.dumps(work())))
    worker.start()
    sender.close()
    try:
        found: dict[str, Any] = json.loads(receiver.recv())
    except EOFError:
        raise RuntimeError("the run ended without a result; its traceback is above") from None
    finally:
        worker.join()
    return found
