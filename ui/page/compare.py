"""The tab with two sides: one prompt for both or one for each, examples, differences, votes and the export.

A prompt goes to the sides as separate Gradio events, one for each, so that neither waits for the other.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import gradio as gr

from ui.answer import Turn
from ui.html import diff, pieces
from ui.info import ServerInfo
from ui.page.download import Download
from ui.page.examples import ExampleButtons
from ui.page.pane import Options, Pane
from ui.page.shared import QUIET, Shared, session_of
from ui.page.voting import Voting
from ui.report import Kind, Report
from ui.saved import Saved
from ui.votes import Ballot

RECORDED_TITLE = "Recorded during training: full fine-tuning of the same base"


class Compare:
    """The tab's components and events."""

    def __init__(self, shared: Shared, known: gr.State) -> None:
        """Lay the tab out in the Gradio context that is open."""
        self._shared, self._known = shared, known
        with gr.Row(elem_id="panes", equal_height=True):
            self.panes = (Pane("left", "base", shared), Pane("right", "dial", shared))
            with gr.Column(scale=2, min_width=260, visible=False, elem_id="recorded") as self.recorded_column:
                gr.HTML(f'<div class="pane-title"><h2>{RECORDED_TITLE}</h2><span>not live</span></div>')
                self.recorded = gr.HTML(elem_id="recorded-card")
        self.voting = Voting(Ballot(shared.settings.votes)) if shared.settings.votes else None
        with gr.Row(elem_id="ask") as self.ask_row:
            self.prompt = gr.Textbox(
                label="Prompt for both sides",
                placeholder="Ask both sides … (Enter sends, Shift+Enter makes a new line)",
                show_label=False,
                container=False,
                lines=1,
                max_lines=8,
                scale=8,
                elem_id="prompt",
                autofocus=True,
            )
            self.send = gr.Button("Send", variant="primary", scale=1, min_width=84, elem_id="send")
            self.stop = gr.Button("Stop", interactive=False, scale=1, min_width=84, elem_id="stop")
            self.clear = gr.Button("Clear", scale=1, min_width=84, elem_id="clear")
        self.examples = ExampleButtons()
        with gr.Row(elem_id="options"):
            plain: dict[str, Any] = {"container": False, "min_width": 0, "scale": 0}
            self.remember = gr.Checkbox(True, label="Keep the conversation", **plain)
            self.separate = gr.Checkbox(False, label="Separate prompts", **plain)
            self.markdown = gr.Checkbox(False, label="Render Markdown", **plain)
            self.differences = gr.Checkbox(False, label="Show differences", **plain)
        with gr.Column(visible=False, elem_id="difference-part") as self.difference_part:
            gr.HTML("<h2>Differences between the newest answers</h2>")
            self.difference = gr.HTML(elem_id="difference")
        self.download = Download()
        self.sent = gr.State("")

    @property
    def remembered(self) -> list[Any]:
        """The components whose values the browser keeps, beside the turns."""
        fields = [self.remember, self.separate, self.markdown, self.differences]
        for pane in self.panes:
            fields += [*pane.picker.fields, *pane.sampling.components]
        return fields

    @property
    def greeted(self) -> list[Any]:
        """What `greet` sets."""
        picked = [part for pane in self.panes for part in pane.picker.offered]
        return [self.recorded_column, self.recorded, *self.examples.components, *picked]

    def wire(self, load: Any, save: Callable[[Any], Any]) -> None:
        """Connect buttons and fields; `save` is called with every event after which the browser keeps the page."""
        for pane in self.panes:
            pane.picker.wire(self._known)
        typed = gr.on(
            [self.send.click, self.prompt.submit], self._take, [self.prompt, self._known], self._taken, **QUIET
        )
        self._ask_both(typed, save)
        for kind, place, button in self.examples.buttons:
            pressed = button.click(self._taker_of(kind, place), [self._known], self._fresh, **QUIET)
            self._ask_both(pressed, save)
        for pane in self.panes:
            self._wire_pane(pane, save)
        self.stop.click(self._stop, None, None, **QUIET)
        save(self.clear.click(self._clear, [self._known], self._fresh, **QUIET))
        self.separate.change(self._split, [self.separate], [self.ask_row, *(p.own_row for p in self.panes)], **QUIET)
        sides = [pane.turns for pane in self.panes]
        shown = [self.difference_part, self.difference]
        watched = [self.differences.change, *(turns.change for turns in sides)]
        gr.on(watched, self._compare, [self.differences, *sides], shown, trigger_mode="always_last", **QUIET)
        self.download.wire({pane.key: pane.turns for pane in self.panes})
        if self.voting:
            self.voting.wire(load, *sides)

    def greet(self, info: ServerInfo, values: dict[Any, Any], *, moves: bool) -> dict[Any, Any]:
        """Show what the server offers; `moves` puts the sliders where `values` has them."""
        report = info.report
        updates = {
            self.recorded_column: gr.Column(visible=bool(report and report.has_recording)),
            self.recorded: pieces.recorded(report, values[self.sent]),
            **self.examples.show(report),
        }
        for pane in self.panes:
            updates |= pane.picker.offer(info, values, moves=moves)
        return updates

    def saved(self, values: dict[Any, Any]) -> Saved:
        """What the browser keeps.

        Raises:
            ValueError: A field holds what is not allowed.
        """
        left, right = (pane.saved(values) for pane in self.panes)
        return Saved(
            left=left,
            right=right,
            remember=values[self.remember],
            markdown=values[self.markdown],
            separate=values[self.separate],
            differences=values[self.differences],
        )

    def restored(self, saved: Saved) -> dict[Any, Any]:
        """The tab as the browser kept it."""
        left, right = self.panes
        return {
            **left.restored(saved.left, saved.markdown),
            **right.restored(saved.right, saved.markdown),
            self.remember: saved.remember,
            self.markdown: saved.markdown,
            self.separate: saved.separate,
            self.differences: saved.differences,
            **self._split(saved.separate),
        }

    @property
    def restorable(self) -> list[Any]:
        """What `restored` sets."""
        parts: list[Any] = [*self.remembered, self.ask_row]
        for pane in self.panes:
            parts += [pane.log, pane.turns, pane.own_row, pane.picker.dial_part, pane.picker.other_part]
        return parts

    @property
    def _taken(self) -> list[Any]:
        return [self.prompt, self.sent, self.recorded, self.stop]

    @property
    def _fresh(self) -> list[Any]:
        return [*self._taken, *(part for pane in self.panes for part in pane.outputs)]

    def _wire_pane(self, pane: Pane, save: Callable[[Any], Any]) -> None:
        inputs = {self._known, self.remember, self.markdown, *pane.inputs}
        pressed = [pane.own_send.click, pane.own_prompt.submit]

        async def take(prompt: str, request: gr.Request) -> tuple[str, str]:
            if prompt.strip():
                await pane.end(request)
            return "", prompt.strip()

        async def again(values: dict[Any, Any], request: gr.Request) -> AsyncIterator[dict[Any, Any]]:
            async for update in pane.regenerate(values, self._options(values), request):
                yield update

        own = gr.on(pressed, take, [pane.own_prompt], [pane.own_prompt, pane.own_sent], **QUIET)
        self._ask(own, pane, pane.own_sent, save)
        save(pane.again.click(again, inputs, pane.outputs, trigger_mode="multiple", **QUIET))
        pane.stop.click(pane.end, None, None, **QUIET)
        self.markdown.change(
            lambda markdown, turns: pane.drawn(turns, markdown), [self.markdown, pane.turns], [pane.log], **QUIET
        )

    def _ask_both(self, event: Any, save: Callable[[Any], Any]) -> None:
        for pane in self.panes:
            running = self._ask(event, pane, self.sent, save)
            running.then(self._still_running, None, [self.stop], trigger_mode="multiple", **QUIET)

    def _ask(self, event: Any, pane: Pane, sent: gr.State, save: Callable[[Any], Any]) -> Any:
        async def ask(values: dict[Any, Any], request: gr.Request) -> AsyncIterator[dict[Any, Any]]:
            if not values[sent]:
                yield {pane.turns: values[pane.turns]}
                return
            async for update in pane.run(values[sent], values, self._options(values), request):
                yield update

        inputs = {sent, self._known, self.remember, self.markdown, *pane.inputs}
        running = event.then(ask, inputs, pane.outputs, trigger_mode="multiple", **QUIET)
        save(running)
        return running

    def _options(self, values: dict[Any, Any]) -> Options:
        return Options(values[self._known], values[self.remember], values[self.markdown])

    async def _take(self, prompt: str, known: ServerInfo | None, request: gr.Request) -> dict[Any, Any]:
        prompt = prompt.strip()
        if not prompt:
            return {self.sent: ""}
        await self._stop(request)
        return {
            self.prompt: "",
            self.sent: prompt,
            self.recorded: pieces.recorded(_report(known), prompt),
            self.stop: gr.Button(interactive=True),
        }

    def _taker_of(self, kind: Kind, place: int) -> Callable[..., Awaitable[dict[Any, Any]]]:
        async def take(known: ServerInfo | None, request: gr.Request) -> dict[Any, Any]:
            prompt = self.examples.prompt(kind, place, _report(known))
            left, right = self.panes
            return {**await self._take(prompt, known, request), **left.emptied(), **right.emptied()}

        return take

    async def _stop(self, request: gr.Request) -> None:
        await self._shared.sessions.stop(session_of(request), *(pane.key for pane in self.panes))

    async def _clear(self, known: ServerInfo | None, request: gr.Request) -> dict[Any, Any]:
        await self._stop(request)
        left, right = self.panes
        return {
            self.prompt: "",
            self.sent: "",
            self.recorded: pieces.recorded(_report(known), ""),
            self.stop: gr.Button(interactive=False),
            **left.emptied(),
            **right.emptied(),
        }

    def _still_running(self, request: gr.Request) -> Any:
        busy = self._shared.sessions.busy(session_of(request), *(pane.key for pane in self.panes))
        return gr.Button(interactive=busy)

    def _split(self, separate: bool) -> dict[Any, Any]:
        own = {pane.own_row: gr.Row(visible=separate) for pane in self.panes}
        return {self.ask_row: gr.Row(visible=not separate), **own}

    def _compare(self, wanted: bool, left: list[Turn], right: list[Turn]) -> dict[Any, Any]:
        if not wanted:
            return {self.difference_part: gr.Column(visible=False)}
        newest = (turns[-1] if turns else None for turns in (left, right))
        return {self.difference_part: gr.Column(visible=True), self.difference: diff.difference(*newest)}


def _report(info: ServerInfo | None) -> Report | None:
    return info.report if info else None
