"""The tab with the checkpoint's training report: scores, the dial's curve, the loss and the layers."""

from typing import Any

import gradio as gr

from ui.html import pieces, tables
from ui.info import ServerInfo
from ui.page.plot import Plot
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
            self.dial = Plot("dial", "control scale", "score", "skill", "Score of each skill along the dial")
            self.loss = Plot("loss", "step", "value", "term", "Loss during training")
            self.weight = Plot("weight", "layer", "value", "on", "Weight of the new branch")
            self.alignment = Plot("alignment", "layer", "value", "on", "Alignment of the branches (cosine)")

    @property
    def greeted(self) -> list[Any]:
        """What `greet` sets."""
        plots = (self.dial, self.loss, self.weight, self.alignment)
        return [self.facts, self.scores, *(part for plot in plots for part in plot.components)]

    def greet(self, info: ServerInfo) -> dict[Any, Any]:
        """Show the server's report."""
        report = info.report or Report()
        return {
            self.facts: pieces.facts(_facts(info, report)) if info.report else _NONE,
            self.scores: tables.scores(report) if info.report else "",
            **self.dial.filled(_dial(report)),
            **self.loss.filled(_loss(report)),
            **self.weight.filled(_layers(report, "weight")),
            **self.alignment.filled(_layers(report, "alignment")),
        }


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
        {"control scale": point.scale, "score": score, "skill": report.skill(name).title}
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
        {"layer": str(layer.layer), "value": getattr(layer, f"{value}_{text}"), "on": name}
        for layer in report.training.layers
        for text, name in _LAYERS.items()
        if getattr(layer, f"{value}_{text}") is not None
    ]
