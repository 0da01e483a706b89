"""The export of both conversations: made on the server, saved by the browser, never written to the server's disk."""

from collections.abc import Callable, Mapping
from typing import Any

import gradio as gr

from ui.answer import Turn
from ui.export import DEFAULT_NAME, as_jsonl, as_markdown, file_name
from ui.page.shared import QUIET

_SAVE = """(name, text) => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], {type: "text/plain;charset=utf-8"}));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}"""
_FORMATS: dict[str, tuple[str, Callable[[Mapping[str, list[Turn]]], str]]] = {
    "JSONL": ("jsonl", as_jsonl),
    "Markdown": ("md", as_markdown),
}


class Download:
    """A file name and a button for each format."""

    def __init__(self) -> None:
        """Lay them out in the Gradio context that is open."""
        with (
            gr.Accordion("Export", open=False, elem_classes="folded", elem_id="export"),
            gr.Row(elem_classes="bottoms"),
        ):
            self.name = gr.Textbox(
                DEFAULT_NAME, label="File name", max_lines=1, scale=3, min_width=180, elem_id="export-name"
            )
            self.buttons = {
                title: gr.Button(title, size="md", scale=1, min_width=110, elem_id=f"export-{extension}")
                for title, (extension, _) in _FORMATS.items()
            }
        self._fitting_name = gr.Textbox(visible="hidden", label="Fitting name")
        self._text = gr.Textbox(visible="hidden", label="Exported text")

    def wire(self, sides: dict[str, gr.State]) -> None:
        """Let the buttons export the turns of the sides."""
        made = [self._fitting_name, self._text]
        for title, button in self.buttons.items():
            event = button.click(_maker(title, list(sides)), [self.name, *sides.values()], made, **QUIET)
            event.then(None, made, None, js=_SAVE)


def _maker(title: str, names: list[str]) -> Callable[..., Any]:
    extension, write = _FORMATS[title]

    def make(name: str, *turns: list[Turn]) -> tuple[str, str]:
        return file_name(name or "", extension), write(dict(zip(names, turns, strict=True)))

    return make
