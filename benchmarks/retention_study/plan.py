"""Which set-ups the retention study is made of, in the order in which they are run.

Learning rates, and then the weights of rehearsal, are searched on a base of their own and on its validation split.
Every other base is looked at on its test split only, and nothing is chosen by it.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from retention_study.run import TASKS, Setup
from retention_study.tasks import Score, merit

SEARCH_BASE = 100
SEARCHED = ("foreign", "language")
"""Kinds of task; the unmarked one shares the bases of `foreign` and what was chosen for it."""
METHODS = {
    "foreign": ("dual", "partial", "lora", "stack", "hft", "full"),
    "unmarked": ("dual", "partial", "lora", "stack", "hft", "full"),
    "language": ("dual", "partial", "lora", "full"),
}
"""What each compares; the second kind of task is the smaller study."""
BASES = (0, 1, 2, 3, 4)
FEWER = 3
"""Bases of the ablation, of scarce rehearsal and of the second kind of task."""
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
WEIGHTS = (1.0, 0.3, 3.0)
"""Of the divergence on rehearsed sequences and of the mean gate on them; between equals the first is chosen."""
REPLAYED = 1 / 3
"""Share of old examples in an update with real replay: as many as would be rehearsed, beside as many new ones."""

Results = Mapping[Setup, dict[str, Any]]
Tuned = Mapping[tuple[str, str | None], dict[str, float]]
"""Method and source of rehearsal -> what was chosen for them: fields of a set-up."""


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


def recipe(task: str, base: int, tuned: Tuned, method: str = "dual", **changes: Any) -> Setup:
    """A method with rehearsal and what was chosen for it; the dual-branch recipe unless told otherwise."""
    return setup(task, base, method, **{**tuned[method, SOURCES[0]], "source": SOURCES[0], **changes})


def search(task: str) -> Iterator[Setup]:
    """Every learning rate of every method, with and without rehearsal; with it only in the smaller study."""
    for source in SOURCES if task == "foreign" else SOURCES[:1]:
        for method in METHODS[task]:
            for rate in LEARNING_RATES[method]:
                yield setup(task, SEARCH_BASE, method, rate, split="validation", source=source)


def weigh(task: str, rates: Tuned) -> Iterator[Setup]:
    """Every weight of rehearsal for every method at its learning rate; methods with gates have two weights."""
    for method in METHODS[task]:
        for kl, gate in itertools.product(WEIGHTS, WEIGHTS if method == "dual" else WEIGHTS[:1]):
            yield recipe(task, SEARCH_BASE, rates, method, split="validation", kl=kl, gate=gate)


def is_searched(results: Results, task: str) -> bool:
    """Whether the whole search of a task is in `results`."""
    if any(one not in results for one in search(task)):
        return False
    return all(one in results for one in weigh(task, chosen_rates(results, task)))


def best(setups: Iterable[Setup], results: Results) -> Setup:
    """The set-up with the best validation score; all must be in `results`."""
    return max(setups, key=lambda setup: merit(Score(*results[setup]["score"]), TASKS[setup.task].wanted))


def chosen_rates(results: Results, task: str) -> Tuned:
    """The learning rate of each method, with and without rehearsal, by the search's validation scores."""
    tried: dict[tuple[str, str | None], list[Setup]] = {}
    for one in search(task):
        tried.setdefault((one.method, one.source), []).append(one)
    found = {of: {"learning_rate": best(setups, results).learning_rate} for of, setups in tried.items()}
    return {(m, source): found.get((m, source), found[m, SOURCES[0]]) for m in METHODS[task] for source in SOURCES}


def chosen(results: Results, task: str) -> Tuned:
    """Learning rates and, with rehearsal, its weights."""
    rates = chosen_rates(results, task)
    tried: dict[str, list[Setup]] = {}
    for one in weigh(task, rates):
        tried.setdefault(one.method, []).append(one)
    winners = {method: best(setups, results) for method, setups in tried.items()}
    weights = {(m, SOURCES[0]): {**rates[m, SOURCES[0]], "kl": w.kl, "gate": w.gate} for m, w in winners.items()}
    return {**rates, **weights}


def main(task: str, base: int, tuned: Tuned) -> Iterator[Setup]:
    """All methods on one base; the ceiling of real replay has the learning rate of rehearsal."""
    for method in METHODS[task]:
        yield recipe(task, base, tuned, method)
    for method in METHODS[task]:
        yield setup(task, base, method, **tuned[method, None])
    for method in ("full", "dual"):
        size = SIZES[task]["batch_size"] + SIZES[task]["rehearsed"]
        rate = tuned[method, SOURCES[0]]["learning_rate"]
        yield setup(task, base, method, rate, replayed=REPLAYED, batch_size=size)


def rehearsed(task: str, base: int, tuned: Tuned) -> Iterator[Setup]:
    """Those of `main` that rehearse, for a task that shares another's search."""
    return (one for one in main(task, base, tuned) if one.source or one.replayed)


def ablation(task: str, base: int, tuned: Tuned) -> Iterator[Setup]:
    """The dual-branch recipe with one ingredient changed at a time."""
    ingredients: tuple[dict[str, Any], ...] = (
        {"method": "lerp", "gate": 0.0, "initial_factor": 0.0},
        {"gate": 0.0},
        {"kl": 0.0, "divergence": 1.0},
        {"divergence": 1.0},
        {"layers": 2},
        {"layers": 8},
        {"pool": 1024},
    )
    for change in ingredients:
        yield dataclasses.replace(recipe(task, base, tuned), **change)


def scarce(task: str, base: int, tuned: Tuned) -> Iterator[Setup]:
    """The methods of the smaller study, rehearsing meaningless requests, or few examples an update."""
    poorer: tuple[dict[str, Any], ...] = ({"source": "random"}, {"rehearsed": 4})
    for change in poorer:
        for method in METHODS["language"]:
            yield recipe(task, base, tuned, method, **change)


def stages(tasks: Sequence[str], bases: Sequence[int], finished: Callable[[], Results]) -> Iterator[list[Setup]]:
    """The whole study, a stage at a time: each is to be carried out before the next is asked for."""
    for task in tasks:
        yield list(search(task))
        yield list(weigh(task, chosen_rates(finished(), task)))
        tuned = chosen(finished(), task)
        fewer = [base for base in bases if base in BASES[:FEWER]]
        for base in bases if task == "foreign" else fewer:
            yield list(main(task, base, tuned))
        if task == "foreign":
            for base in bases:
                yield list(rehearsed("unmarked", base, tuned))
            for part in (ablation, scarce):
                for base in fewer:
                    yield list(part(task, base, tuned))
