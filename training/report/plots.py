"""The report's figures as SVG text to be put into a page: matplotlib draws, the page's own colours fill in.

Text stays text, in the page's font; axes and text take the page's text colour, so one figure reads on light and dark.
"""

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from training.report.schema import Report

_INK = "#010203"
"""A colour that nothing else has: what is drawn in it becomes the page's text colour."""
_SIZE = (5.2, 2.9)  # inches, at 72 to an inch: text of 10 points stays readable on a page of 400 pixels
_LEGEND_ROW = 0.19  # inches
_LEGEND_WIDTH = 70  # characters
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",  # ids that do not change from run to run
    "text.parse_math": False,  # a dollar sign in a name is no formula
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.2,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.6,
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color"), _INK
    ),
    # Okabe and Ito's colours for the colour-blind, without black and yellow: all of them show on white and on black.
    "axes.prop_cycle": cycler(
        color=["#0083c8", "#e0690b", "#00a078", "#cc6aa6", "#b38600", "#5aa9dc", "#8f6fd1", "#c0504d", "#7a9a3a"]
    ),
}


def figures(report: Report, prefix: str = "") -> dict[str, str]:
    """Title -> SVG of every figure that the report has something for; its ids start with `prefix`."""
    curve = report.training.loss_curve
    with matplotlib.rc_context(_STYLE):
        made = {
            "Before and after": _skills(report),
            "Skill by control scale": _dial(report),
            "Loss": _lines(_by_step(curve, ("loss", "divergence", "kl", "gate")), "step", "loss", log=True),
            "Loss of the base": _lines(_by_step(report.training.base_loss_curve, ("loss",)), "step", "loss", log=True),
            "Skills while training (validation)": _checks(report),
            "Interpolation weight, new text": _layers(curve, "weight_new", "weight"),
            "Interpolation weight, rehearsed text": _layers(curve, "weight_rehearsed", "weight"),
            "Alignment of the branches, new text": _layers(curve, "alignment_new", "cosine"),
            "Alignment of the branches, rehearsed text": _layers(curve, "alignment_rehearsed", "cosine"),
        }
        return {title: _svg(figure, title, prefix) for title, figure in made.items() if figure is not None}


Series = Mapping[str, Sequence[tuple[float, float]]]


def _skills(report: Report) -> Figure | None:
    """Scores before and after with their intervals, a row for each skill."""
    if not report.skills:
        return None
    figure, axes = _blank("score", "", height=1.2 + 0.36 * len(report.skills))
    for offset, name, label in ((0.16, "base", "before"), (-0.16, "control", "after")):
        rows = [(len(report.skills) - 1 - i + offset, skill) for i, skill in enumerate(report.skills)]
        places, scores = [place for place, _ in rows], [skill.by_model[name] for _, skill in rows]
        low = [skill.by_model[name] - skill.intervals[name].low for _, skill in rows]
        high = [skill.intervals[name].high - skill.by_model[name] for _, skill in rows]
        axes.errorbar(scores, places, xerr=[low, high], fmt="o", markersize=4, label=label)
    axes.set_yticks(range(len(report.skills)), [_name(skill.label, skill.kind) for skill in reversed(report.skills)])
    axes.set_xlim(-0.03, 1.03)
    _legend(figure, axes)
    return figure


def _name(label: str, kind: str) -> str:
    return f"{label} (new)" if kind == "new" else label


def _dial(report: Report) -> Figure | None:
    labels = {skill.name: _name(skill.label, skill.kind) for skill in report.skills}
    series = {
        labels.get(name, name): [(point.scale, point.scores[name]) for point in report.dial]
        for name in (report.dial[0].scores if report.dial else ())
    }
    figure = _lines(series, "control scale", "score", marker="o")
    if figure is not None:
        axes = figure.axes[0]
        axes.axvline(report.recommended_scale, linestyle=":", color=_INK, linewidth=1)
        axes.set_ylim(-0.03, 1.03)
    return figure


def _checks(report: Report) -> Figure | None:
    checks = report.training.checks
    series = {name: [(c.step, c.scores[name]) for c in checks] for name in (checks[0].scores if checks else ())}
    figure = _lines(series, "step", "score", marker="o")
    if figure is not None:
        figure.axes[0].set_ylim(-0.03, 1.03)
        if report.training.best_step is not None:
            figure.axes[0].axvline(report.training.best_step, linestyle=":", color=_INK, linewidth=1)
    return figure


def _layers(curve: Sequence[Mapping[str, float]], what: str, axis: str) -> Figure | None:
    names = sorted({key for entry in curve for key in entry if key.startswith(f"{what}/")}, key=_layer)
    series = {f"layer {_layer(name)}": points for name, points in _by_step(curve, names).items()}
    return _lines(series, "step", axis)


def _layer(name: str) -> int:
    return int(name.rpartition("/")[2])


def _by_step(curve: Sequence[Mapping[str, float]], names: Iterable[str]) -> dict[str, list[tuple[float, float]]]:
    found = {name: [(entry["step"], entry[name]) for entry in curve if name in entry] for name in names}
    return {name: points for name, points in found.items() if points}


def _lines(series: Series, across: str, up: str, log: bool = False, marker: str | None = None) -> Figure | None:
    """One line for each series; None where there is nothing to draw."""
    if not series:
        return None
    figure, axes = _blank(across, up)
    for label, points in series.items():
        axes.plot(*zip(*points, strict=True), label=label, marker=marker, markersize=4)
    if log and all(value > 0 for points in series.values() for _, value in points):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
    _legend(figure, axes)
    return figure


def _blank(across: str, up: str, height: float = _SIZE[1]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_SIZE[0], height), layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel=across, ylabel=up)
    return figure, axes


def _legend(figure: Figure, axes: Axes) -> None:
    """A legend below; every label is shown, also one that starts with the underscore that matplotlib hides."""
    handles: list[Any] = [*(axes.containers or axes.lines)]
    labels = [str(handle.get_label()) for handle in handles]
    columns = max(1, min(3, len(labels), _LEGEND_WIDTH // (max(map(len, labels)) + 5)))
    figure.set_figheight(figure.get_figheight() + _LEGEND_ROW * -(-len(labels) // columns))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def _svg(figure: Figure, title: str, prefix: str) -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Title": title})
    text = out.getvalue()
    text = text[text.index("<svg") :].replace(_INK, "currentColor")
    # Sized by the page; ids are made different from those of the other figures in it.
    for size in ("width", "height"):
        text = re.sub(rf'(<svg [^>]*?) {size}="[^"]*"', r"\1", text, count=1)
    mark = prefix + re.sub(r"\W", "", title)
    return re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{mark}-", text)
