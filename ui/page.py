"""The comparison page: lays out the panes and wires prompt, examples, Send, Stop and Clear to them.

One prompt goes to both panes as two separate Gradio events. The page is built before the server is known and
asks it when a browser opens the page, again and again until it is ready, so either may start first.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import gradio as gr

from ui import render
from ui.client import ChatClient, ServerInfo
from ui.examples import ExampleButtons
from ui.panes import Pane
from ui.report import Kind, Report
from ui.sessions import Sessions
from ui.settings import Settings

TITLE = "Control LLM, side by side"
LINE = (
    "One prompt, two models from one engine. <b>Left</b>: the base model, as it was pre-trained. "
    "<b>Right</b>: the same model after Control LLM taught it something new."
)
RECORDED_TITLE = "Recorded during training: full fine-tuning of the same base"
POLL_WAITING_S, POLL_READY_S = 2.0, 20.0


class Page:
    """The layout and its events; `blocks` is what Gradio serves."""

    def __init__(self, settings: Settings) -> None:
        """Build the page for one server."""
        self.settings = settings
        self.client = ChatClient(settings)
        self.sessions = Sessions()
        with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as self.blocks:
            self._lay_out()
            self._wire()
        self.blocks.queue(default_concurrency_limit=None, api_open=False)

    def _lay_out(self) -> None:
        with gr.Row(elem_id="head"):
            gr.HTML(f"<h1>{TITLE}</h1><p>{LINE}</p>", elem_id="headline")
            self.status = gr.HTML(elem_id="status")
        shared = (self.client, self.sessions)
        with gr.Row(elem_id="panes", equal_height=True):
            self.base = Pane("base", "Base model", "The base model answers here.", *shared)
            self.control = Pane("control", "Control LLM", "The controlled model answers here.", *shared)
            with gr.Column(scale=2, min_width=260, visible=False, elem_id="recorded") as self.recorded_column:
                gr.HTML(f'<div class="pane-title"><b>{RECORDED_TITLE}</b><span>not live</span></div>')
                self.recorded = gr.HTML(elem_id="recorded-card")
        with gr.Row(elem_id="ask"):
            self.prompt = gr.Textbox(
                placeholder="Ask both models … (Enter sends, Shift+Enter makes a new line)",
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
            plain: dict[str, Any] = {"container": False, "min_width": 200, "scale": 0}
            self.remember = gr.Checkbox(True, label="Keep the conversation", **plain)
            self.markdown = gr.Checkbox(False, label="Render Markdown", **plain)
        with gr.Column(visible=False, elem_id="scores") as self.scores:
            gr.HTML("<h2>Scores measured during training</h2>")
            self.summary = gr.HTML(elem_id="summary")
            with gr.Accordion("Scores by skill", open=False):
                self.per_skill = gr.HTML(elem_id="per-skill")
        self.sent = gr.State("")
        self.report = gr.State(None)
        self.timer = gr.Timer(POLL_WAITING_S)
        self.known = gr.State(None)

    def _wire(self) -> None:
        quiet: dict[str, Any] = {
            "show_progress": "hidden",
            "api_visibility": "private",
            "concurrency_limit": None,
        }
        greeting = [
            self.known,
            self.status,
            self.timer,
            self.report,
            self.recorded_column,
            self.recorded,
            self.scores,
            self.summary,
            self.per_skill,
            *self.base.identity,
            *self.control.identity,
            *self.examples.components,
        ]
        gr.on([self.blocks.load, self.timer.tick], self._greet, [self.known, self.sent], greeting, **quiet)

        taken = [self.prompt, self.sent, self.recorded, self.stop]
        asked = [self.send.click, self.prompt.submit]
        typed = gr.on(asked, self._take, [self.prompt, self.report], taken, **quiet)
        self._stream_after(typed, quiet)
        fresh = [*taken, *self.base.outputs, *self.control.outputs]
        for kind, place, button in self.examples.buttons:
            take = self._taker_of(kind, place)
            self._stream_after(button.click(take, [self.report], fresh, **quiet), quiet)

        self.stop.click(self._stop, None, None, **quiet)
        self.clear.click(self._clear, [self.report], fresh, **quiet)
        for pane in (self.base, self.control):
            self.markdown.change(pane.redraw, [self.markdown, pane.history], [pane.chat], **quiet)
        self.blocks.unload(self._stop)

    def _stream_after(self, event: Any, quiet: dict[str, Any]) -> None:
        for pane in (self.base, self.control):
            inputs = [self.sent, self.remember, self.markdown, *pane.inputs]
            running = event.then(pane.run, inputs, pane.outputs, trigger_mode="multiple", **quiet)
            running.then(self._still_running, None, [self.stop], trigger_mode="multiple", **quiet)

    async def _greet(self, known: ServerInfo | None, sent: str) -> dict[Any, Any]:
        """Show what the server serves; when that has not changed, touch nothing."""
        info = await self.client.info()
        if info == known:
            return {self.known: gr.skip()}
        status = {
            self.known: info,
            self.status: render.status(info, self.settings.api_url),
            self.timer: gr.Timer(POLL_READY_S if info.ready else POLL_WAITING_S),
        }
        if not info.ready:  # what is on the page stays; where the server was never seen, that is nothing
            return status
        report = info.report
        return {
            **status,
            self.report: report,
            self.recorded_column: gr.Column(visible=bool(report and report.has_recording)),
            self.recorded: render.recorded(report, sent),
            self.scores: gr.Column(visible=bool(report and report.skills)),
            self.summary: render.summary(report),
            self.per_skill: render.per_skill(report),
            **self.base.identify(info.base),
            **self.control.identify(info.control),
            **self.examples.show(report),
        }

    async def _take(self, prompt: str, report: Report | None, request: gr.Request) -> dict[Any, Any]:
        prompt = prompt.strip()
        if not prompt:
            return {self.sent: ""}
        await self._stop(request)
        return {
            self.prompt: "",
            self.sent: prompt,
            self.recorded: render.recorded(report, prompt),
            self.stop: gr.Button(interactive=True),
        }

    def _taker_of(self, kind: Kind, place: int) -> Callable[..., Awaitable[dict[Any, Any]]]:
        async def take(report: Report | None, request: gr.Request) -> dict[Any, Any]:
            taken = await self._take(self.examples.prompt(kind, place, report), report, request)
            return {**taken, **self.base.emptied(), **self.control.emptied()}

        return take

    async def _stop(self, request: gr.Request) -> None:
        await self.sessions.stop(request.session_hash or "")

    async def _clear(self, report: Report | None, request: gr.Request) -> dict[Any, Any]:
        await self._stop(request)
        return {
            self.prompt: "",
            self.sent: "",
            self.recorded: render.recorded(report, ""),
            self.stop: gr.Button(interactive=False),
            **self.base.emptied(),
            **self.control.emptied(),
        }

    def _still_running(self, request: gr.Request) -> Any:
        return gr.Button(interactive=self.sessions.busy(request.session_hash or ""))
