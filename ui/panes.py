"""One pane: a model, its own conversation, and the one Gradio event that streams an answer into it.

Knows its client and nothing of the other pane, so that what happens to one leaves the other alone. The pane's
title and the request are made from the same model id, and the client refuses an answer under another name.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ui import render
from ui.answer import Answer, Target
from ui.client import ChatClient, Message
from ui.sessions import Sessions

REDRAW_S, REDRAW_LONG_S, LONG = 0.03, 0.15, 32  # from so many tokens on, drawing costs the browser more
EMPTY_ANSWER = "(empty answer)"


@dataclass(frozen=True)
class Turn:
    """A prompt and what came back."""

    prompt: str
    answer: str = ""


class Pane:
    """The components of one side, and its event."""

    def __init__(self, key: str, heading: str, caption: str, client: ChatClient, sessions: Sessions) -> None:
        """Lay the pane out in the Gradio context that is open."""
        self.key, self.heading = key, heading
        self._client, self._sessions = client, sessions
        with gr.Column(scale=3, min_width=300, elem_id=f"{key}-pane", elem_classes="pane"):
            self.title = gr.HTML(render.pane_title(heading, None), elem_id=f"{key}-title")
            self.chat = gr.Chatbot(
                elem_id=f"{key}-chat",
                show_label=False,
                height=330,
                placeholder=caption,
                render_markdown=False,
                group_consecutive_messages=False,
                feedback_options=None,
                buttons=[],
            )
            self.footer = gr.HTML(render.answer_footer(None), elem_id=f"{key}-footer")
        self.target = gr.State(None)
        self.history = gr.State([])

    @property
    def identity(self) -> list[Any]:
        """The components that `identify` sets."""
        return [self.title, self.target]

    def identify(self, target: Target | None) -> dict[Any, Any]:
        """Name the model that this pane asks from now on."""
        return {self.title: render.pane_title(self.heading, target), self.target: target}

    @property
    def inputs(self) -> list[Any]:
        """What `run` reads beside the prompt."""
        return [self.target, self.history]

    @property
    def outputs(self) -> list[Any]:
        """What `run` writes."""
        return [self.chat, self.footer, self.history]

    def emptied(self) -> dict[Any, Any]:
        """The outputs of a fresh conversation."""
        return {self.chat: [], self.footer: render.answer_footer(None), self.history: []}

    async def run(
        self,
        prompt: str,
        remember: bool,
        markdown: bool,
        target: Target | None,
        history: list[Turn],
        request: gr.Request,
    ) -> AsyncIterator[tuple[Any, ...]]:
        """Ask the pane's model and stream what it says."""
        if not prompt:
            yield gr.skip(), gr.skip(), gr.skip()
            return
        if target is None:
            answer = Answer(Target(""))
            answer.end("failed", "There is no model to ask yet: the server has not answered.")
            yield self._view(prompt, answer, history, markdown)
            return
        answer = Answer(target)
        task = asyncio.create_task(self._client.ask(answer, _messages(history, prompt, remember)))
        with self._sessions.running(request.session_hash or "", task):
            shown = -1
            while not task.done():
                if shown != answer.revision:
                    shown = answer.revision
                    yield self._view(prompt, answer, history, markdown)
                await asyncio.wait({task}, timeout=REDRAW_S if answer.tokens < LONG else REDRAW_LONG_S)
            if answer.state in ("waiting", "streaming"):
                answer.end("stopped")
            yield self._view(prompt, answer, history, markdown)

    def redraw(self, markdown: bool, history: list[Turn]) -> Any:
        """The conversation, with or without Markdown."""
        return gr.Chatbot(_bubbles(history, markdown), render_markdown=markdown)

    def _view(self, prompt: str, answer: Answer, history: list[Turn], markdown: bool) -> tuple[Any, ...]:
        text = answer.text or (EMPTY_ANSWER if answer.state == "done" else "")
        turns = [*history, Turn(prompt, answer.text)]
        return _bubbles([*history, Turn(prompt, text)], markdown), render.answer_footer(answer), turns


def _bubbles(turns: list[Turn], markdown: bool) -> list[Any]:
    bubbles: list[Any] = []
    for turn in turns:
        bubbles.append({"role": "user", "content": render.message(turn.prompt, markdown)})
        if turn.answer:
            bubbles.append({"role": "assistant", "content": render.message(turn.answer, markdown)})
    return bubbles


def _messages(history: list[Turn], prompt: str, remember: bool) -> list[Message]:
    messages: list[Message] = []
    for turn in history if remember else []:
        if turn.answer:  # a failed turn left nothing to refer to
            messages.append({"role": "user", "content": turn.prompt})
            messages.append({"role": "assistant", "content": turn.answer})
    return [*messages, {"role": "user", "content": prompt}]
