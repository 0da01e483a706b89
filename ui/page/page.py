"""The whole page: heading, status and four tabs; greets every visitor with what the server serves.

The page is built before the server is known and asks it when a browser opens the page, again and again until it is
ready, so either may start first. What a browser kept of an earlier visit is put back before that.
"""

from collections.abc import Callable
from typing import Any

import gradio as gr

from ui.html import pieces
from ui.page.compare import Compare
from ui.page.report import ReportTab
from ui.page.shared import QUIET, Shared, session_of
from ui.page.skills import Skills
from ui.page.sweep import Sweep
from ui.saved import read_saved
from ui.settings import Settings

TITLE = "Control LLM, side by side"
LINE = "What did training teach the model, and what did it keep? Base and controlled model, from one engine."
POLL_WAITING_S, POLL_READY_S = 2.0, 20.0
STORAGE_KEY = "cllm-page"


class Page:
    """The layout and its events; `blocks` is what Gradio serves.

    Args:
        settings: What the page was told.
        key_of: The API key of the visitor who made a request.
        can_log_out: Whether there is a session to end.
    """

    def __init__(self, settings: Settings, key_of: Callable[[gr.Request], str], *, can_log_out: bool = False) -> None:
        self._shared = Shared(settings, key_of)
        with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as self.blocks:
            self.known = gr.State(None)
            self.placed = gr.State(False)  # whether the sliders stand where the reader or the report wants them
            with gr.Row(elem_id="head"):
                gr.HTML(f"<h1>{TITLE}</h1><p>{LINE}</p>", elem_id="headline")
                self.status = gr.HTML(elem_id="status")
                if can_log_out:
                    gr.HTML('<form method="post" action="logout"><button>Log out</button></form>', elem_id="log-out")
            with gr.Tabs(elem_id="tabs"):
                with gr.Tab("Compare", id="compare"):
                    self.compare = Compare(self._shared, self.known)
                with gr.Tab("Sweep", id="sweep"):
                    self.sweep = Sweep(self._shared, self.known)
                with gr.Tab("Skills", id="skills"):
                    self.skills = Skills(self._shared, self.known)
                with gr.Tab("Report", id="report"):
                    self.report = ReportTab()
            # Kept as text in the browser; the secret hides nothing, it only has to outlive a restart of the page.
            self.kept = gr.BrowserState(None, storage_key=STORAGE_KEY, secret=STORAGE_KEY)
            self.timer = gr.Timer(POLL_WAITING_S, active=False)  # once the page was greeted
            self._wire()
        self.blocks.queue(default_concurrency_limit=None, api_open=False)

    def _wire(self) -> None:
        greeted = [
            self.known,
            self.placed,
            self.status,
            self.timer,
            *self.compare.greeted,
            *self.skills.greeted,
            *self.report.greeted,
        ]
        own = {self.known, self.placed, self.compare.sent, self.skills.dial.scale, self.skills.runs}
        seen = {*own, *self.compare.remembered, *self._others}
        outputs = list(dict.fromkeys(greeted))
        restored = [*outputs, *self.compare.restorable]
        self.blocks.load(self._open, {self.kept, *seen}, list(dict.fromkeys(restored)), **QUIET)
        self.timer.tick(self._greet, seen, outputs, **QUIET)
        self.compare.wire(self.blocks.load, self._save_after)
        self.sweep.wire()
        self.skills.wire()
        fields = self.compare.remembered
        changes = [field.input if hasattr(field, "input") else field.change for field in fields]
        gr.on(changes, self._save, self._savable, [self.kept], trigger_mode="always_last", **QUIET)
        self.blocks.unload(self._leave)

    @property
    def _others(self) -> list[gr.State]:
        return [pane.picker.server for pane in self.compare.panes]

    @property
    def _savable(self) -> set[Any]:
        return {*self.compare.remembered, *(pane.turns for pane in self.compare.panes)}

    def _save_after(self, event: Any) -> None:
        event.then(self._save, self._savable, [self.kept], trigger_mode="multiple", **QUIET)

    def _save(self, values: dict[Any, Any]) -> Any:
        try:
            return self.compare.saved(values).fitted().model_dump()
        except ValueError:  # a number that is still being typed
            return gr.skip()

    async def _open(self, values: dict[Any, Any], request: gr.Request) -> dict[Any, Any]:
        """Put back what the browser kept, and greet; in one go, so that neither undoes the other."""
        saved = read_saved(values[self.kept])
        if saved is None:
            return await self._greet(values, request)
        restored = self.compare.restored(saved)
        shown = {**values, **{part: value for part, value in restored.items() if part in values}, self.placed: True}
        return {**restored, self.placed: True, **await self._greet(shown, request, moves=True)}

    async def _greet(self, values: dict[Any, Any], request: gr.Request, moves: bool = False) -> dict[Any, Any]:
        """Show what the server serves; when that has not changed, touch nothing."""
        info = await self._shared.client.info(self._shared.server(request))
        if info == values[self.known]:
            return {self.known: gr.skip()}
        status = {
            self.known: info,
            self.status: pieces.status(info),
            self.timer: gr.Timer(POLL_READY_S if info.ready else POLL_WAITING_S, active=True),
        }
        if not info.ready:  # what is on the page stays; where the server was never seen, that is nothing
            return status
        if info.dial and not values[self.placed]:
            moves = True
            sliders = [self.skills.dial.scale, *(pane.picker.scale for pane in self.compare.panes)]
            values = {**values, **dict.fromkeys(sliders, info.dial.recommended)}
        return {
            **status,
            self.placed: True,
            **self.compare.greet(info, values, moves=moves),
            **self.skills.greet(info, values, moves=moves),
            **self.report.greet(info),
        }

    async def _leave(self, request: gr.Request) -> None:
        await self._shared.sessions.leave(session_of(request))
