"""The dial as a reader sees it: a slider over the server's control scales, its marks, and the number beside it."""

from typing import Any

import gradio as gr

from ui.html import pieces
from ui.info import Dial

STEP = 0.05
# Gradio refuses an event whose number is empty or beyond the slider's ends, without a word on the page. So such a
# number is put right while it is typed, before Gradio sees it.
KEEP_ON_DIAL = """() => {
  const typed = event => event.target.matches?.(".dial input[type=number]") && event.target;
  document.addEventListener("input", event => {
    const field = typed(event);
    if (!field) return;
    if (field.value === "") event.stopImmediatePropagation();
    else if (+field.value > +field.max) field.value = field.max;
    else if (+field.value < +field.min) field.value = field.min;
  }, true);
  document.addEventListener("focusout", event => {
    const field = typed(event);
    if (field && field.value === "") field.value = field.closest(".dial").querySelector("input[type=range]").value;
  }, true);
}"""


class DialSlider:
    """A slider and its marks."""

    def __init__(self, elem_id: str) -> None:
        """Lay them out in the Gradio context that is open, a column of the class `dial`."""
        dial = Dial("")
        self.scale = gr.Slider(
            dial.least, dial.most, dial.default, step=STEP, label="Control scale", buttons=[], elem_id=elem_id
        )
        self.ticks = gr.HTML(pieces.ticks(dial))

    @property
    def components(self) -> list[Any]:
        """What `offer` sets."""
        return [self.scale, self.ticks]

    def offer(self, dial: Dial, scale: float, *, moves: bool) -> dict[Any, Any]:
        """Take over a server's dial; the slider stays where the reader has it, unless that is not on the dial.

        Args:
            dial: What the server offers.
            scale: Where the slider is to stand.
            moves: Put it there, wherever it stands.
        """
        nearest = min(max(scale, dial.least), dial.most)
        place: dict[str, Any] = {"value": nearest} if moves or nearest != scale else {}
        return {
            self.scale: gr.update(minimum=dial.least, maximum=dial.most, **place),
            self.ticks: pieces.ticks(dial),
        }
