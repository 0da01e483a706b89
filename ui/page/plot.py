"""A line plot with a legend of its own below it: Gradio's is cut off where it is wider than the plot."""

from itertools import cycle
from typing import Any

import gradio as gr
import pandas as pd

from ui.html import pieces

# Told from each other, and from the ground, in light and in dark.
COLOURS = ("#0d9488", "#e07a1f", "#6366f1", "#d9466f", "#5b9a34", "#b45fd1", "#c09a18", "#3b8fd4", "#94775e", "#7f8c9d")


class Plot:
    """A card with one plot; hidden until there is something to draw."""

    def __init__(self, key: str, x: str, y: str, series: str, title: str) -> None:
        """Lay it out in the Gradio context that is open.

        Args:
            key: What its element is named by.
            x: Field of a row for the horizontal axis, and its name. Texts make one place each, in order.
            y: Field of a row for the vertical axis.
            series: Field of a row that says which line it belongs to.
            title: What stands above.
        """
        self._x, self._series = x, series
        with gr.Column(visible=False, min_width=300, elem_id=f"plot-{key}", elem_classes="plot") as self.card:
            self.lines = gr.LinePlot(
                x=x, y=y, color=series, title=title, y_title=" ", height=240, buttons=[], colors_in_legend=[]
            )
            self.legend = gr.HTML()

    @property
    def components(self) -> list[Any]:
        """What `filled` sets."""
        return [self.card, self.lines, self.legend]

    def filled(self, rows: list[dict[str, Any]]) -> dict[Any, Any]:
        """The plot of these rows."""
        if not rows:
            return {self.card: gr.Column(visible=False)}
        colours = dict(zip(dict.fromkeys(row[self._series] for row in rows), cycle(COLOURS), strict=False))
        places = list(dict.fromkeys(row[self._x] for row in rows))
        order: dict[str, Any] = {"sort": places} if isinstance(places[0], str) else {}
        return {
            self.card: gr.Column(visible=True),
            self.lines: gr.LinePlot(pd.DataFrame(rows), color_map=colours, **order),
            self.legend: pieces.legend(colours),
        }
