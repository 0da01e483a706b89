"""Which set-ups the retention study is made of, in the order in which they are run.

Learning rates are searched on a base of their own and on its validation split. Every other base is looked at on its
test split only, and nothing is chosen by it.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from retention_study.run import TASKS, Setup
from retention_study.tasks import Score, merit

SEARCH_BASE = 100
SEARCHED = ("foreign", "language")
"""Kinds of task; the unmarked one shares the bases and the learning rates of `foreign`."""
METHODS = {
    "foreign": ("dual", "partial", "lora", "stack", "hft", "full"),
    "unmarked": ("dual", "partial", "lora", "stack", "hft", "full"),
    "language": ("dual", "partial", "lora", "full"),
}
"""What each compares; the second kind of task is the smaller study."""
BASES = (0, 1, 2, 3, 4)
FEWER = 3
"""Bases of the ablation and of the second kind of task."""
LEARNING_RATES: dict[str, tuple[float, ...]] = {
    "dual": (5e-4, 1e-3, 2e-3),
    "partial": (3e-4, 1e-3, 2e-3),
    "lora": (1e-3, 3e-3, 1e-2),
    "stack": (3e-4, 1e-3, 2e-3),
    "hft": (3e-4, 1e-3, 2e-3),
    "full": (1e-4, 3e-4, 1e-3),
}
GATE_LEARNING_RATE = 5e-3
"""Of the dual-branch layers' gates: testbed experience, not searched."""
SOURCES = ("sampled", None)
"""With rehearsal, and without."""
REPLAYED = 1 / 3
"""Share of old examples in an update with real replay: as many as would be rehearsed, beside as many new ones."""

Results = Mapping[Setup, dict[str, Any]]


SIZES: dict[str, dict[str, int]] = {
    "foreign": {"steps": 300, "batch_size": 32, "rehearsed": 16},
    "unmarked": {"steps": 300, "batch_size": 32, "rehearsed": 16},
    "language": {"steps": 200, "batch_size": 16, "rehearsed": 8},
}
"""Updates of a training, and new and rehearsed examples in each. Documents are longer than requests and answers."""


def setup(task: str, base: int, method: str, learning_rate: float, **changes: Any) -> Setup:
    """A set-up with what belongs to its task and method."""
    gates = GATE_LEARNING_RATE if method in ("dual", "lerp") else None
    return Setup(task, base, method, learning_rate, **{"gate_learning_rate": gates, **SIZES[task], **changes})


def search(task: str) -> Iterator[Setup]:
    """Every learning rate of every method, with and without rehearsal; with it only in the smaller study."""
    for source in SOURCES if task == "foreign" else SOURCES[:1]:
        for method in METHODS[task]:
            for rate in LEARNING_RATES[method]:
                yield setup(task, SEARCH_BASE, method, rate, split="validation", source=source)


def chosen(results: Results, task: str) -> dict[tuple[str, str | None], float]:
    """The learning rate of each method, with and without rehearsal, by the search's validation scores.

    The search must be in `results`.
    """
    found = {}
    for source in SOURCES:
        searched = source if task == "foreign" else SOURCES[0]
        for method in METHODS[task]:

            def merit_at(rate: float, method: str = method, source: str | None = searched) -> tuple[bool, float]:
                wanted = setup(task, SEARCH_BASE, method, rate, split="validation", source=source)
                return merit(Score(*results[wanted]["score"]), TASKS[task].wanted)

            found[method, source] = max(LEARNING_RATES[method], key=merit_at)
    return found


def main(task: str, base: int, rates: Mapping[tuple[str, str | None], float]) -> Iterator[Setup]:
    """All methods on one base; the ceiling of real replay has the learning rate of rehearsal."""
    for source in SOURCES:
        for method in METHODS[task]:
            yield setup(task, base, method, rates[method, source], source=source)
    for method in ("full", "dual"):
        size = SIZES[task]["batch_size"] + SIZES[task]["rehearsed"]
        yield setup(task, base, method, rates[method, "sampled"], replayed=REPLAYED, batch_size=size)


def rehearsed(task: str, base: int, rates: Mapping[tuple[str, str | None], float]) -> Iterator[Setup]:
    """Those of `main` that rehearse, for a task that shares another's learning rates."""
    return (one for one in main(task, base, rates) if one.source or one.replayed)


def ablation(task: str, base: int, rates: Mapping[tuple[str, str | None], float]) -> Iterator[Setup]:
    """The dual-branch recipe with one ingredient changed at a time, and the same scarcity for partial fine-tuning."""
    recipe = setup(task, base, "dual", rates["dual", "sampled"], source="sampled")
    partial = setup(task, base, "partial", rates["partial", "sampled"], source="sampled")
    scarce: tuple[dict[str, Any], ...] = ({"source": "random"}, {"pool": 256}, {"rehearsed": 4})
    ingredients: tuple[dict[str, Any], ...] = (
        {"method": "lerp", "gate": 0.0, "initial_factor": 0.0},
        {"gate": 0.0},
        {"kl": 0.0, "divergence": 1.0},
        {"divergence": 1.0},
        {"layers": 2},
        {"layers": 8},
        {"pool": 1024},
    )
    for change in (*scarce, *ingredients):
        yield dataclasses.replace(recipe, **change)
    for change in scarce:
        yield dataclasses.replace(partial, **change)


def stages(tasks: Sequence[str], bases: Sequence[int], finished: Callable[[], Results]) -> Iterator[list[Setup]]:
    """The whole study, a stage at a time: each is to be carried out before the next is asked for."""
    for task in tasks:
        yield list(search(task))
        rates = chosen(finished(), task)
        for base in bases[: len(bases) if task == "foreign" else FEWER]:
            yield list(main(task, base, rates))
        if task == "foreign":
            for base in bases:
                yield list(rehearsed("unmarked", base, rates))
            for base in bases[:FEWER]:
                yield list(ablation(task, base, rates))
