"""The example prompts as buttons: a row of the old skills, a row of the new ones.

Gradio builds a page once for everybody, before the server's report is known, so a fixed number of buttons is
made and those with an example are shown. A press starts a fresh conversation: that is how they were recorded.
"""

from typing import Any

import gradio as gr

from ui.html.tables import KIND_TITLES, KIND_VERBS
from ui.report import Example, Kind, Report

BUTTONS_PER_KIND = 6
LONGEST_LABEL = 72


class ExampleButtons:
    """The buttons and the order in which they show a report's examples."""

    def __init__(self) -> None:
        """Lay the buttons out in the Gradio context that is open, all hidden."""
        self.buttons: list[tuple[Kind, int, gr.Button]] = []
        self.rows: list[tuple[Kind, gr.Row]] = []
        for kind in KIND_TITLES:
            with gr.Row(visible=False, elem_classes="examples", elem_id=f"examples-{kind}") as row:
                label = f"{KIND_TITLES[kind]}<small>{KIND_VERBS[kind]}</small>"
                gr.HTML(f'<div class="row-label">{label}</div>', elem_classes="label-holder")
                for place in range(BUTTONS_PER_KIND):
                    button = gr.Button(visible=False, size="sm", elem_classes="example", min_width=0, scale=0)
                    self.buttons.append((kind, place, button))
            self.rows.append((kind, row))

    @property
    def components(self) -> list[Any]:
        """What `show` sets."""
        return [row for _, row in self.rows] + [button for _, _, button in self.buttons]

    def show(self, report: Report | None) -> dict[Any, Any]:
        """Put a report's examples on the buttons."""
        chosen = {kind: _examples(report, kind) for kind in KIND_TITLES}
        rows = [gr.update(visible=bool(chosen[kind])) for kind, _ in self.rows]
        hidden = gr.update(visible=False)
        buttons = []
        for kind, place, _ in self.buttons:
            example = chosen[kind][place] if place < len(chosen[kind]) else None
            buttons.append(gr.update(value=_label(report, example), visible=True) if example else hidden)
        return dict(zip(self.components, [*rows, *buttons], strict=True))

    @staticmethod
    def prompt(kind: Kind, place: int, report: Report | None) -> str:
        """The prompt behind a button, or nothing."""
        examples = _examples(report, kind)
        return examples[place].prompt if place < len(examples) else ""


def _examples(report: Report | None, kind: Kind) -> list[Example]:
    return report.examples_of(kind, BUTTONS_PER_KIND) if report else []


def _label(report: Report | None, example: Example) -> str:
    title = report.skill(example.skill).title if report else example.skill
    text = f"{title}: {' '.join(example.prompt.split())}"
    return text if len(text) <= LONGEST_LABEL else text[: LONGEST_LABEL - 1] + "…"
