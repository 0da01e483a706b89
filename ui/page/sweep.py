"""The tab that sweeps the dial: one prompt at several control scales at once, a row for each."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import gradio as gr

from ui.answer import Answer
from ui.html import pieces, tables
from ui.info import Dial, ServerInfo
from ui.page.pane import conversation
from ui.page.sampling import SamplingFields
from ui.page.shared import QUIET, Shared, session_of
from ui.page.streaming import redraws

DEFAULT_SCALES = "0, 0.25, 0.5, 0.75, 1"
MOST_SCALES = 11
_PART = "sweep"


class Sweep:
    """The tab's components and events."""

    def __init__(self, shared: Shared, known: gr.State) -> None:
        """Lay the tab out in the Gradio context that is open."""
        self._shared, self._known = shared, known
        gr.HTML(
            '<p class="lead">One prompt along the dial, from the base model to the model as trained and beyond.</p>'
        )
        with gr.Row(elem_classes="bottoms"):
            self.prompt = gr.Textbox(
                label="Prompt", lines=1, max_lines=8, scale=6, elem_id="sweep-prompt", min_width=220
            )
            self.scales = gr.Textbox(
                DEFAULT_SCALES, label="Scales", max_lines=1, scale=3, elem_id="sweep-scales", min_width=160
            )
            self.start = gr.Button("Sweep", variant="primary", scale=1, min_width=96, elem_id="sweep-start")
            self.stop = gr.Button("Stop", scale=1, min_width=84, elem_id="sweep-stop", interactive=False)
        self.sampling = SamplingFields("sweep", shared.settings)
        self.note = gr.HTML(elem_id="sweep-note")
        self.table = gr.HTML(elem_id="sweep-table")

    def wire(self) -> None:
        """Connect the buttons."""
        inputs = {self._known, self.prompt, self.scales, *self.sampling.components}
        outputs = [self.note, self.table, self.stop]
        asked = [self.start.click, self.prompt.submit, self.scales.submit]
        gr.on(asked, self._run, inputs, outputs, trigger_mode="multiple", **QUIET)
        self.stop.click(self._end, None, None, **QUIET)

    async def _run(self, values: dict[Any, Any], request: gr.Request) -> AsyncIterator[dict[Any, Any]]:
        await self._end(request)
        prompt = (values[self.prompt] or "").strip()
        info: ServerInfo | None = values[self._known]
        try:
            if not prompt:
                raise ValueError("Type a prompt first.")
            if info is None:
                raise ValueError("There is no model to ask yet: the server has not answered.")
            sampling = self.sampling.read(values)
            dial = info.usable_dial()
            scales = read_scales(values[self.scales], dial)
            answers = [Answer(info.at_scale(scale), prompt, sampling) for scale in scales]
        except ValueError as error:
            yield {self.note: pieces.note(str(error), is_error=True)}
            return
        messages = conversation([], prompt, sampling.system)
        task = asyncio.create_task(_all(self._shared.client.ask(answer, messages) for answer in answers))

        def view(running: bool) -> dict[Any, Any]:
            table = tables.sweep([answer.turn for answer in answers], dial.recommended)
            return {self.note: "", self.table: table, self.stop: gr.Button(interactive=running)}

        with self._shared.sessions.running(session_of(request), _PART, task):
            async for _ in redraws(
                task, lambda: sum(a.revision for a in answers), lambda: sum(len(a.turn.text) for a in answers)
            ):
                yield view(running=True)
            for answer in answers:
                answer.end("stopped")
            yield view(running=False)

    async def _end(self, request: gr.Request) -> None:
        await self._shared.sessions.stop(session_of(request), _PART)


def read_scales(text: str, dial: Dial) -> list[float]:
    """Return the scales that a reader typed, each once, in order.

    Raises:
        ValueError: One is no number, or not on the dial.
    """
    words = (text or "").replace(";", " ").replace(",", " ").split()
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        numbers = []
    if not numbers:
        raise ValueError(f"Scales must be numbers with commas between them, such as {DEFAULT_SCALES}.")
    scales = sorted(set(map(dial.rounded, numbers)))
    if len(scales) > MOST_SCALES:
        raise ValueError(f"A sweep takes at most {MOST_SCALES} scales.")
    return scales


async def _all(asks: Any) -> None:
    await asyncio.gather(*asks)
