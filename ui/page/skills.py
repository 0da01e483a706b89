"""The tab that runs held-out prompts of every skill at the slider's scale and fills the kept/learned table live.

Each scale that was run keeps its column, so that turning the dial shows what it costs and what it brings.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import gradio as gr

from ui.answer import Answer, Sampling, Turn
from ui.html import pieces, tables
from ui.info import ServerInfo
from ui.page.dial import DialSlider
from ui.page.shared import QUIET, Shared, session_of
from ui.page.streaming import redraws
from ui.report import Skill
from ui.skills import Run, Tally, skills_of

AT_ONCE = 8
_PART = "skills"
_LEAD = (
    "Held-out prompts of every skill, asked now, at the scale that you set: what is kept of the old skills, and what "
    "is learned of the new. An answer counts if it is right to the letter."
)


class Skills:
    """The tab's components and events."""

    def __init__(self, shared: Shared, known: gr.State) -> None:
        """Lay the tab out in the Gradio context that is open."""
        self._shared, self._known = shared, known
        gr.HTML(f'<p class="lead">{_LEAD}</p>')
        with gr.Row(elem_id="skills-bar"):
            with gr.Column(scale=3, min_width=260, elem_classes="dial"):
                self.dial = DialSlider("skills-scale")
            self.start = gr.Button("Run held-out prompts", variant="primary", min_width=170, elem_id="skills-start")
            self.stop = gr.Button("Stop", min_width=84, elem_id="skills-stop", interactive=False)
        self.note = gr.HTML(elem_id="skills-note")
        self.table = gr.HTML(elem_id="skills-table")
        self.runs = gr.State([])

    @property
    def greeted(self) -> list[Any]:
        """What `greet` sets."""
        return [*self.dial.components, self.table]

    def greet(self, info: ServerInfo, values: dict[Any, Any], *, moves: bool) -> dict[Any, Any]:
        """Show what the server offers; `moves` puts the slider where `values` has it."""
        table = tables.live_skills(self._skills(info), values[self.runs])
        if info.dial is None:
            return {self.table: table}
        return {self.table: table, **self.dial.offer(info.dial, values[self.dial.scale], moves=moves)}

    def wire(self) -> None:
        """Connect the buttons."""
        outputs = [self.note, self.table, self.stop, self.runs]
        self.start.click(
            self._run, [self._known, self.dial.scale, self.runs], outputs, trigger_mode="multiple", **QUIET
        )
        self.stop.click(self._end, None, None, **QUIET)

    async def _run(
        self, info: ServerInfo | None, scale: float, runs: list[Run], request: gr.Request
    ) -> AsyncIterator[dict[Any, Any]]:
        await self._end(request)
        skills = self._skills(info)
        try:
            if info is None:
                raise ValueError("There is no model to ask yet: the server has not answered.")
            scale = info.usable_dial().rounded(scale)
            target = info.at_scale(scale)
        except ValueError as error:
            yield {self.note: pieces.note(str(error), is_error=True)}
            return
        run = Run(scale, {skill.name: Tally() for skill in skills})
        runs = sorted([run, *(old for old in runs if old.scale != scale)], key=lambda one: one.scale)
        work = _Work(run)
        questions = [(skill.name, question) for skill in skills for question in skill.prompts_sample]
        gate = asyncio.Semaphore(AT_ONCE)

        async def ask(name: str, prompt: str, expected: str) -> None:
            answer = Answer(target, prompt, Sampling())
            async with gate:
                await self._shared.client.ask(answer, [{"role": "user", "content": prompt}])
            work.note(name, answer.turn, expected)

        async def ask_all() -> None:
            await asyncio.gather(*(ask(name, q.prompt, q.expected) for name, q in questions))

        task = asyncio.create_task(ask_all())

        def view(running: bool) -> dict[Any, Any]:
            note = f"{work.count} of {len(questions)} prompts answered at scale {scale:g}."
            return {
                self.note: pieces.note(work.problem, is_error=True) if work.problem else pieces.note(note),
                self.table: tables.live_skills(skills, runs),
                self.stop: gr.Button(interactive=running),
                self.runs: runs,
            }

        with self._shared.sessions.running(session_of(request), _PART, task):
            async for _ in redraws(task, lambda: work.count, lambda: 0):
                yield view(running=True)
            yield view(running=False)

    async def _end(self, request: gr.Request) -> None:
        await self._shared.sessions.stop(session_of(request), _PART)

    def _skills(self, info: ServerInfo | None) -> list[Skill]:
        return self._shared.skills or skills_of(info.report if info else None)


class _Work:
    """Counts answers into a run, and keeps the newest problem."""

    def __init__(self, run: Run) -> None:
        self.run, self.count, self.problem = run, 0, ""

    def note(self, name: str, answer: Turn, expected: str) -> None:
        """Count an answer; one that failed is neither right nor wrong."""
        tally = self.run.tallies[name]
        self.count += 1
        if answer.state == "done":
            tally.note(answer.text == expected)
        else:
            tally.failed += 1
            self.problem = answer.error
