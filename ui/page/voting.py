"""Three buttons and the tally; on the page only if it was given a file for votes."""

from collections.abc import Callable
from typing import Any

import gradio as gr

from ui.answer import Turn
from ui.html import pieces, tables
from ui.page.shared import QUIET
from ui.votes import Ballot, Verdict

_VERDICTS: list[tuple[str, Verdict]] = [("Left is better", "left"), ("Tie", "tie"), ("Right is better", "right")]


class Voting:
    """The row of votes."""

    def __init__(self, ballot: Ballot) -> None:
        """Lay it out in the Gradio context that is open."""
        self._ballot = ballot
        self.buttons: list[tuple[Verdict, gr.Button]] = []
        with gr.Row(elem_id="votes"):
            for title, verdict in _VERDICTS:
                button = gr.Button(title, size="sm", min_width=0, scale=0, elem_id=f"vote-{verdict}")
                self.buttons.append((verdict, button))
            self.note = gr.HTML(elem_id="vote-note", elem_classes="grows")
        with gr.Accordion("Tally of votes", open=False, elem_classes="folded", elem_id="tally-part"):
            told = f"Votes, with prompt and answers, are kept in {ballot.path} on the page's server, and nowhere else."
            gr.HTML(pieces.note(told))
            self.tally = gr.HTML(elem_id="tally")

    def wire(self, load: Any, left: gr.State, right: gr.State) -> None:
        """Let the buttons vote on the newest turns of the sides."""
        load(self._counted, None, [self.tally], **QUIET)
        for verdict, button in self.buttons:
            button.click(self._voter(verdict), [left, right], [self.note, self.tally], **QUIET)

    def _counted(self) -> str:
        return tables.standings(self._ballot.standings())

    def _voter(self, verdict: Verdict) -> Callable[[list[Turn], list[Turn]], dict[Any, Any]]:
        def vote(left: list[Turn], right: list[Turn]) -> dict[Any, Any]:
            try:
                if not (left and right):
                    raise ValueError("Ask both sides the same prompt before you vote.")
                self._ballot.cast(verdict, left[-1], right[-1])
            except (ValueError, OSError) as error:
                return {self.note: pieces.note(str(error), is_error=True)}
            return {self.note: pieces.note("Counted."), self.tally: self._counted()}

        return vote
