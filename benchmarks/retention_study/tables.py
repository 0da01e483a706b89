"""The retention study's results as Markdown: means over bases with 95 % intervals (Student's t)."""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from retention_study import plan
from retention_study.run import SCALES, Setup
from retention_study.tasks import Score

T95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
"""Degrees of freedom -> 0.975 quantile of Student's t."""
Results = Mapping[Setup, dict[str, Any]]
Value = Callable[[dict[str, Any]], float | None]


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half of the 95 % interval's width; infinite for one value."""
    middle = statistics.fmean(values)
    if len(values) == 1:
        return middle, math.inf
    return middle, T95[len(values) - 1] * statistics.stdev(values) / math.sqrt(len(values))


def shown(values: Sequence[float | None]) -> str:
    """Mean and interval of the bases that have a value, and of how many if not all have one."""
    there = [value for value in values if value is not None]
    if not there:
        return "–"
    middle, half = interval(there)
    spread = "" if math.isinf(half) else f" ± {half:.3f}"
    count = "" if len(there) == len(values) else f" ({len(there)} of {len(values)})"
    return f"{middle:.3f}{spread}{count}"


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def new(result: dict[str, Any]) -> float:
    """The new skill."""
    return Score(*result["score"]).new


def old(result: dict[str, Any]) -> float:
    """Mean of the originals."""
    return Score(*result["score"]).old


def kept(result: dict[str, Any]) -> float | None:
    """The originals as a share of their base's, if that has any."""
    base = Score(*result["base"]).old
    return old(result) / base if base else None


def at_first(result: dict[str, Any]) -> float | None:
    """The originals when the new skill was found learned for the first time."""
    return None if result["first"] is None else Score(*result["first"][1]).old


def first_update(result: dict[str, Any]) -> float | None:
    """When that was."""
    return None if result["first"] is None else result["first"][0]


def mean(values: Sequence[float | None]) -> str:
    """Mean alone, of what varies little or by the machine."""
    there = [value for value in values if value is not None]
    return f"{statistics.fmean(there):,.0f}" if there else "–"


COLUMNS: tuple[tuple[str, Value, Callable[[Sequence[float | None]], str]], ...] = (
    ("new skill", new, shown),
    ("originals", old, shown),
    ("of the base's", kept, shown),
    ("originals when first learned", at_first, shown),
    ("at update", first_update, mean),
    ("trainable", lambda result: result["trainable"], mean),
    ("CPU ms / update", lambda result: result["cpu_ms_per_step"], mean),
    ("memory MB", lambda result: result["peak_bytes"] / 2**20, mean),
)


def by_set_up(results: Results, setups: Iterable[Setup], tuned: plan.Tuned) -> dict[str, list[dict[str, Any]]]:
    """Name -> results of its finished runs, one for each base."""
    found: dict[str, list[dict[str, Any]]] = {}
    for setup in setups:
        if setup in results:
            found.setdefault(describe(setup, tuned), []).append({**results[setup], "of": setup.base})
    return found


def describe(setup: Setup, tuned: plan.Tuned | None = None) -> str:
    """Name of a set-up: the method, and what differs from what was chosen for it, or from the defaults."""
    usual = plan.setup(setup.task, setup.base, setup.method, setup.learning_rate)
    if setup.source is not None and tuned is not None:
        usual = plan.recipe(setup.task, setup.base, tuned, "dual" if setup.method == "lerp" else setup.method)
    changed = [
        f"{name} {value:g}"
        for name in ("initial_factor", "divergence", "kl", "gate", "layers", "pool", "rehearsed")
        if (value := getattr(setup, name)) != getattr(usual, name)
    ]
    if setup.source == "random":
        changed.append("random requests")
    return ", ".join([setup.name, *changed])


def main_table(groups: Mapping[str, list[dict[str, Any]]]) -> str:
    """One row for each method."""
    rows = [
        [name, str(len(found)), *(write([value(result) for result in found]) for _, value, write in COLUMNS)]
        for name, found in groups.items()
    ]
    return markdown(["method", "bases", *(name for name, _, _ in COLUMNS)], rows)


def averaged_table(groups: Mapping[str, list[dict[str, Any]]]) -> str:
    """WiSE-FT and LiNeS of each method that has them, their one number chosen on each base's validation split."""
    rows = []
    for name, found in groups.items():
        for change in ("wise_ft", "lines"):
            picked = [result[change] for result in found if change in result]
            if picked:
                scores = [Score(*one["score"]) for one in picked]
                rows.append(
                    [
                        f"{name}, {change}",
                        shown([score.new for score in scores]),
                        shown([score.old for score in scores]),
                        ", ".join(f"{one['chosen']:g}" for one in picked),
                    ]
                )
    return markdown(["method", "new skill", "originals", "chosen for each base"], rows)


def difference_table(groups: Mapping[str, list[dict[str, Any]]], recipe: str) -> str:
    """The recipe minus every other method, base by base, over the bases that both have."""
    rows = []
    ours = {result["of"]: result for result in groups[recipe]}
    for name, found in groups.items():
        pairs = [(ours[result["of"]], result) for result in found if result["of"] in ours]
        if name == recipe or not pairs:
            continue
        rows.append([name, *(shown([value(a) - value(b) for a, b in pairs]) for value in (new, old))])
    return markdown([f"{recipe} minus", "new skill", "originals"], rows)


def dial_table(groups: Mapping[str, list[dict[str, Any]]]) -> str:
    """Scores at every scale, and merged back."""
    rows = []
    for name, found in groups.items():
        if "dial" not in found[0]:
            continue
        for part, value in (("new", lambda score: score.new), ("originals", lambda score: score.old)):
            at = [shown([value(Score(*result["dial"][str(scale)])) for result in found]) for scale in SCALES]
            rows.append([name, part, *at, shown([value(Score(*result["merged"])) for result in found])])
    return markdown(["method", "", *(f"s = {scale:g}" for scale in SCALES), "merged back"], rows)


def rates_table(rates: plan.Tuned, results: Results, task: str) -> str:
    """The search: validation scores (new / originals) at every learning rate, the chosen one in bold."""
    rows: dict[str, list[str]] = {}
    for setup in plan.search(task):
        text = f"{setup.learning_rate:g}: {searched(results[setup])}"
        if setup.learning_rate == rates[setup.method, setup.source]["learning_rate"]:
            text = f"**{text}**"
        rows.setdefault(setup.name, [setup.name]).append(text)
    return markdown(["method", "low", "middle", "high"], rows.values())


def weights_table(tuned: plan.Tuned, results: Results, task: str) -> str:
    """The same at every weight of rehearsal; `gate` is the dual-branch model's alone."""
    rows: dict[tuple[str, float], list[str]] = {}
    for setup in plan.weigh(task, tuned):
        text = searched(results[setup])
        picked = tuned[setup.method, plan.SOURCES[0]]
        if (setup.kl, setup.gate) == (picked["kl"], picked["gate"]):
            text = f"**{text}**"
        name = f"{setup.name}, gate {setup.gate:g}" if setup.method == "dual" else setup.name
        rows.setdefault((setup.method, setup.gate), [name]).append(text)
    return markdown(["method", *(f"KL {weight:g}" for weight in plan.WEIGHTS)], rows.values())


def searched(result: dict[str, Any]) -> str:
    """Scores of a run of the search."""
    return f"{new(result):.2f} / {old(result):.3f}"


def document(results: Results) -> str:
    """All tables of what is finished."""
    parts = []
    for task, title in (
        ("foreign", "A new skill, with a marker"),
        ("unmarked", "The same without a marker"),
        ("language", "A new language"),
    ):
        family = "foreign" if task == "unmarked" else task
        if not plan.is_searched(results, family):
            continue
        tuned = plan.chosen(results, family)
        groups = by_set_up(results, [s for base in plan.BASES for s in plan.main(task, base, tuned)], tuned)
        if not groups:
            continue
        parts += [f"### {title}", main_table(groups)]
        recipe = "dual+rehearsal"
        if recipe in groups:
            parts += [f"`{recipe}` against the others, base by base:", difference_table(groups, recipe)]
        parts += [
            "The dial and the merge:",
            dial_table(groups),
            "Averages with the base:",
            averaged_table(groups),
        ]
        for title, part, methods in (
            ("Ablation of the recipe, its first row:", plan.ablation, ("dual",)),
            ("Poorer rehearsal, and first the usual one on the same bases:", plan.scarce, plan.METHODS["language"]),
        ):
            fewer = plan.BASES[: plan.FEWER]
            changed = by_set_up(results, [s for base in fewer for s in part(task, base, tuned)], tuned)
            if changed:
                usual = [plan.recipe(task, base, tuned, method) for method in methods for base in fewer]
                parts += [title, main_table({**by_set_up(results, usual, tuned), **changed})]
        if family == task:
            parts += ["Learning rates tried, validation scores of the search base (new / originals):"]
            parts += [rates_table(tuned, results, task)]
            parts += [
                "Weights of rehearsal tried at these rates, the same scores:",
                weights_table(tuned, results, task),
            ]
    return "\n\n".join(parts)
