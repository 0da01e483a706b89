"""One side: who answers, how it is sampled, its own conversation, and the event that streams an answer into it.

Knows nothing of the other side, so that what happens to one leaves the other alone. Every answer stands under the
name of the model that it was asked from, also when the choice above has moved on since.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import gradio as gr

from ui.answer import Answer, Turn
from ui.client import Message
from ui.html import transcript
from ui.info import ServerInfo
from ui.page.picker import Picker
from ui.page.sampling import SamplingFields
from ui.page.shared import Shared, session_of
from ui.page.streaming import redraws
from ui.saved import SavedSide, Source


class Pane:
    """The components of one side, and its events; `Compare` wires them."""

    def __init__(self, key: str, source: Source, shared: Shared) -> None:
        """Lay the side out in the Gradio context that is open."""
        self.key, self.name = key, key.capitalize()
        self._shared = shared
        self.hint = f"The {key} side answers here."
        with gr.Column(scale=3, min_width=300, elem_id=f"{key}-pane", elem_classes="pane"):
            self.picker = Picker(key, self.name, source, shared)
            self.sampling = SamplingFields(key, shared.settings)
            self.log = gr.HTML(self.drawn([], False), elem_id=f"{key}-log", elem_classes="log-holder")
            with gr.Row(elem_classes="own-prompt", visible=False) as self.own_row:
                self.own_prompt = gr.Textbox(
                    show_label=False,
                    label=f"Prompt for the {key} side",
                    placeholder=f"Ask the {key} side …",
                    container=False,
                    lines=1,
                    max_lines=8,
                    scale=8,
                    elem_id=f"{key}-prompt",
                )
                self.own_send = gr.Button("Ask", variant="primary", scale=1, min_width=72, elem_id=f"{key}-send")
            with gr.Row(elem_classes="pane-buttons"):
                self.again = gr.Button("Regenerate", size="sm", elem_id=f"{key}-again", min_width=0, scale=0)
                self.stop = gr.Button("Stop", size="sm", elem_id=f"{key}-stop", min_width=0, scale=0, interactive=False)
        self.turns = gr.State([])
        self.own_sent = gr.State("")

    @property
    def inputs(self) -> set[Any]:
        """What `run` reads beside the prompt and the page's options."""
        return {*self.picker.components, *self.sampling.components, self.turns}

    @property
    def outputs(self) -> list[Any]:
        """What `run` writes."""
        return [self.log, self.turns, self.stop]

    async def run(
        self, prompt: str, values: dict[Any, Any], options: "Options", request: gr.Request
    ) -> AsyncIterator[dict[Any, Any]]:
        """Ask the chosen model and stream what it says under the conversation so far."""
        turns: list[Turn] = values[self.turns]
        try:
            target = self.picker.target(values, options.info)
            sampling = self.sampling.read(values)
        except ValueError as error:
            failed = [*turns, Turn(prompt=prompt, state="failed", error=str(error))]
            yield {self.log: self.drawn(failed, options.markdown), self.turns: failed}
            return
        answer = Answer(target, prompt, sampling)
        messages = conversation(turns if options.remember else [], prompt, sampling.system)
        task = asyncio.create_task(self._shared.client.ask(answer, messages))
        with self._shared.sessions.running(session_of(request), self.key, task):
            async for _ in redraws(task, lambda: answer.revision, lambda: len(answer.turn.text)):
                now = [*turns, answer.turn.model_copy()]  # Gradio compares it with the next one
                # The prompt is kept at once, so that nothing is lost when the page is left.
                yield {self.log: self.drawn(now, options.markdown), self.turns: now, self.stop: _enabled(True)}
            answer.end("stopped")
            now = [*turns, answer.turn]
            yield {self.log: self.drawn(now, options.markdown), self.turns: now, self.stop: _enabled(False)}

    async def regenerate(
        self, values: dict[Any, Any], options: "Options", request: gr.Request
    ) -> AsyncIterator[dict[Any, Any]]:
        """Ask for the newest prompt again, in place of its answer."""
        await self.end(request)
        turns: list[Turn] = values[self.turns]
        if not turns:
            yield {self.turns: turns}
            return
        async for update in self.run(turns[-1].prompt, {**values, self.turns: turns[:-1]}, options, request):
            yield update

    async def end(self, request: gr.Request) -> None:
        """Stop this side's answer, and no other."""
        await self._shared.sessions.stop(session_of(request), self.key)

    def emptied(self) -> dict[Any, Any]:
        """A fresh conversation."""
        return {self.log: self.drawn([], False), self.turns: [], self.stop: _enabled(False)}

    def saved(self, values: dict[Any, Any]) -> SavedSide:
        """What the browser keeps of this side.

        Raises:
            ValueError: A field holds what is not allowed.
        """
        picker = self.picker
        return SavedSide(
            source=values[picker.source],
            scale=values[picker.scale],
            url=values[picker.url] or "",
            model=values[picker.model] or "",
            sampling=self.sampling.read(values),
            turns=values[self.turns],
        )

    def restored(self, side: SavedSide, markdown: bool) -> dict[Any, Any]:
        """This side as the browser kept it; an answer that streamed when the page was left has ended."""
        turns = [turn if turn.has_ended else turn.model_copy(update={"state": "stopped"}) for turn in side.turns]
        return {
            **self.picker.restored(side),
            **self.sampling.restored(side.sampling),
            self.turns: turns,
            self.log: self.drawn(turns, markdown),
        }

    def drawn(self, turns: list[Turn], markdown: bool) -> str:
        """The conversation, with or without Markdown."""
        return transcript.transcript(self.name, turns, hint=self.hint, as_markdown=markdown)


class Options:
    """What the page's options say when a side is asked."""

    def __init__(self, info: ServerInfo | None, remember: bool, markdown: bool) -> None:
        self.info, self.remember, self.markdown = info, remember, markdown


def conversation(turns: list[Turn], prompt: str, system: str) -> list[Message]:
    """Return the messages to send: the system prompt, the turns that have an answer, the prompt."""
    messages: list[Message] = [{"role": "system", "content": system}] if system.strip() else []
    for turn in turns:
        if turn.text:  # a failed turn left nothing to refer to
            messages.append({"role": "user", "content": turn.prompt})
            messages.append({"role": "assistant", "content": turn.text})
    return [*messages, {"role": "user", "content": prompt}]


def _enabled(interactive: bool) -> Any:
    return gr.Button(interactive=interactive)
