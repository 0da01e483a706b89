"""The tab with the checkpoint's training report: scores, the dial's curve, the loss and the layers."""

from typing import Any

import gradio as gr
import pandas as pd

from ui.html import pieces, tables
from ui.info import ServerInfo
from ui.report import Report

_NONE = '<p class="hint">The server has no training report about this checkpoint.</p>'
_LAYERS = {"new": "new text", "originals": "old text"}


class ReportTab:
    """The tab's components; what a report does not hold is not shown."""

    def __init__(self) -> None:
        """Lay the tab out in the Gradio context that is open."""
        self.facts = gr.HTML(_NONE, elem_id="report-facts")
        self.scores = gr.HTML(elem_id="report-scores")
        with gr.Row(elem_id="plots", elem_classes="plots"):
            self.dial = _plot("dial", "scale", "score", "skill", "Score of each skill along the dial", "control scale")
            self.loss = _plot("loss", "step", "value", "term", "Loss during training", "step")
            self.weight = _plot("weight", "layer", "value", "on", "Weight of the new branch", "layer")
            self.alignment = _plot("alignment", "layer", "value", "on", "Alignment of the branches (cosine)", "layer")

    @property
    def greeted(self) -> list[Any]:
        """What `greet` sets."""
        return [self.facts, self.scores, self.dial, self.loss, self.weight, self.alignment]

    def greet(self, info: ServerInfo) -> dict[Any, Any]:
        """Show the server's report."""
        report = info.report
        if report is None:
            return {
                self.facts: _NONE,
                self.scores: "",
                **{plot: gr.LinePlot(visible=False) for plot in self.greeted[2:]},
            }
        return {
            self.facts: pieces.facts(_facts(info, report)),
            self.scores: tables.scores(report),
            self.dial: _filled(_dial(report)),
            self.loss: _filled(_loss(report)),
            self.weight: _filled(_layers(report, "weight")),
            self.alignment: _filled(_layers(report, "alignment")),
        }


def _plot(key: str, x: str, y: str, color: str, title: str, x_title: str) -> gr.LinePlot:
    return gr.LinePlot(
        x=x,
        y=y,
        color=color,
        title=title,
        x_title=x_title,
        y_title=" ",
        color_title="",
        height=260,
        min_width=300,
        buttons=[],
        visible=False,
        elem_id=f"plot-{key}",
        elem_classes="plot",
    )


def _filled(rows: list[dict[str, Any]]) -> gr.LinePlot:
    return gr.LinePlot(pd.DataFrame(rows), visible=True) if rows else gr.LinePlot(visible=False)


def _facts(info: ServerInfo, report: Report) -> list[tuple[str, str]]:
    training, dial = report.training, info.dial
    facts = [("Checkpoint", info.checkpoint), ("Trained", report.created[:10]), ("Measured on", report.split)]
    if dial is not None:
        facts.append(("Recommended scale", f"{dial.recommended:g}"))
    if training.steps is not None:
        facts.append(("Steps", f"{training.steps}"))
    if training.seconds is not None:
        facts.append(("Time", f"{training.seconds / 60:.1f} min"))
    if training.trainable_parameters is not None and training.frozen_parameters is not None:
        facts.append(("Trained parameters", _count(training.trainable_parameters)))
        facts.append(("Frozen parameters", _count(training.frozen_parameters)))
    return [(name, value) for name, value in facts if value]


def _count(number: int) -> str:
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)


def _dial(report: Report) -> list[dict[str, Any]]:
    return [
        {"scale": point.scale, "score": score, "skill": report.skill(name).title}
        for point in report.dial
        for name, score in point.scores.items()
        if score is not None
    ]


def _loss(report: Report) -> list[dict[str, Any]]:
    terms = ("loss", "divergence", "kl")
    return [
        {"step": point["step"], "value": point[term], "term": term}
        for point in report.training.loss_curve
        for term in terms
        if point.get("step") is not None and point.get(term) is not None
    ]


def _layers(report: Report, value: str) -> list[dict[str, Any]]:
    return [
        {"layer": layer.layer, "value": getattr(layer, f"{value}_{text}"), "on": name}
        for layer in report.training.layers
        for text, name in _LAYERS.items()
        if getattr(layer, f"{value}_{text}") is not None
    ]
