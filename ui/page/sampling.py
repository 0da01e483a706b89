"""The fields for system prompt and sampling, folded away until they are wanted."""

from typing import Any

import gradio as gr
from pydantic import ValidationError

from ui.answer import Sampling
from ui.settings import Settings

_NAMES = {
    "temperature": "Temperature must be a number from 0 to 2.",
    "top_p": "Top-p must be a number above 0, up to 1.",
    "max_tokens": "Longest answer must be a whole number of tokens, 1 or more, or empty.",
    "seed": "Seed must be a whole number, or empty.",
}


class SamplingFields:
    """The fields of one part of the page."""

    def __init__(self, key: str, settings: Settings) -> None:
        """Lay them out in the Gradio context that is open."""
        with gr.Accordion("System prompt and sampling", open=False, elem_classes="folded", elem_id=f"{key}-sampling"):
            self.system = gr.Textbox(label="System prompt", lines=2, max_lines=6, elem_id=f"{key}-system")
            with gr.Row(elem_classes="numbers"):
                self.temperature = gr.Number(settings.temperature, label="Temperature", step=0.1, min_width=96)
                self.top_p = gr.Number(1, label="Top-p", step=0.05, min_width=96)
                self.max_tokens = gr.Number(
                    settings.max_tokens, label="Longest answer", precision=0, step=64, min_width=96
                )
                # Text, because an empty number field shows a 0 that is not meant.
                self.seed = gr.Textbox(label="Seed", max_lines=1, placeholder="any", min_width=96)

    @property
    def components(self) -> list[Any]:
        """The fields."""
        return [self.system, self.temperature, self.top_p, self.max_tokens, self.seed]

    def read(self, values: dict[Any, Any]) -> Sampling:
        """Return what the fields say.

        Raises:
            ValueError: A number is not allowed; the message is for the reader of the page.
        """
        seed: Any = (values[self.seed] or "").strip() or None  # text, which the model reads as a number
        try:
            return Sampling(
                system=values[self.system] or "",
                temperature=values[self.temperature],
                top_p=values[self.top_p],
                max_tokens=values[self.max_tokens] or None,
                seed=seed,
            )
        except ValidationError as error:
            field = str(error.errors()[0]["loc"][0])
            raise ValueError(_NAMES[field]) from error

    def restored(self, sampling: Sampling) -> dict[Any, Any]:
        """The fields' values for a sampling."""
        seed = "" if sampling.seed is None else str(sampling.seed)
        values = (sampling.system, sampling.temperature, sampling.top_p, sampling.max_tokens, seed)
        return dict(zip(self.components, values, strict=True))
