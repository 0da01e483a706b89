"""Who answers on a side: the base model, the model at a point of the dial, or any model of another server.

The one place where a side's choice becomes a `Target`; the heading and the request are both made from it. The key
of another server goes into this session's memory on the page's server when the reader connects, and nowhere else.
"""

from typing import Any

import gradio as gr

from ui.answer import Target
from ui.html import pieces, transcript
from ui.info import ServerInfo
from ui.page.dial import DialSlider
from ui.page.shared import QUIET, Shared
from ui.saved import SavedSide, Source
from ui.servers import NO_KEY, Server

SOURCES: list[tuple[str, Source]] = [("Base", "base"), ("Dial", "dial"), ("Other", "other")]


class Picker:
    """The choice of one side."""

    def __init__(self, key: str, name: str, source: Source, shared: Shared) -> None:
        """Lay it out in the Gradio context that is open."""
        self.name, self._shared = name, shared
        self.title = gr.HTML(transcript.title(name, "not connected", ""), elem_id=f"{key}-title")
        self.source = gr.Radio(
            SOURCES, value=source, label=f"{name}: who answers", elem_id=f"{key}-source", elem_classes="segments"
        )
        with gr.Column(visible=source == "dial", elem_id=f"{key}-dial", elem_classes="dial") as self.dial_part:
            self.dial = DialSlider(f"{key}-scale")
        with gr.Column(visible=source == "other", elem_id=f"{key}-other", elem_classes="other") as self.other_part:
            with gr.Row():
                self.url = gr.Textbox(
                    label="Address",
                    max_lines=1,
                    placeholder=shared.settings.api_url,
                    scale=3,
                    elem_id=f"{key}-url",
                    min_width=180,
                )
                self.key = gr.Textbox(
                    label="API key",
                    type="password",
                    placeholder="none",
                    scale=2,
                    elem_id=f"{key}-key",
                    min_width=120,
                    html_attributes=gr.InputHTMLAttributes(autocomplete="off"),
                )
            with gr.Row(elem_classes="bottoms"):
                self.model = gr.Dropdown(
                    [], label="Model", allow_custom_value=True, scale=3, elem_id=f"{key}-model", min_width=180
                )
                self.connect = gr.Button("Connect", size="md", scale=2, elem_id=f"{key}-connect", min_width=120)
            self.note = gr.HTML(elem_id=f"{key}-note")
        self.server = gr.State(None)  # the other server with its key, once connected

    @property
    def scale(self) -> gr.Slider:
        """Where the dial stands."""
        return self.dial.scale

    @property
    def fields(self) -> list[Any]:
        """What the browser may keep: no key."""
        return [self.source, self.scale, self.url, self.model]

    @property
    def components(self) -> list[Any]:
        """What `target` reads."""
        return [*self.fields, self.server]

    @property
    def offered(self) -> list[Any]:
        """What `offer` sets."""
        return [self.title, self.source, self.model, self.server, *self.dial.components]

    def wire(self, known: gr.State) -> None:
        """Let the choice show its fields, and the heading name who is asked next."""
        shown = [self.dial_part, self.other_part]
        self.source.change(self._unfold, [self.source], shown, **QUIET)
        asked = {known, *self.components}
        changes = [self.source.change, self.scale.change, self.model.change, self.server.change, self.url.change]

        def name(values: dict[Any, Any]) -> dict[Any, Any]:
            return self.named(values, values[known])

        gr.on(changes, name, asked, [self.title], trigger_mode="always_last", **QUIET)
        connected = [self.key, self.model, self.server, self.note]
        pressed = [self.connect.click, self.url.submit, self.key.submit]
        gr.on(pressed, self._connect, [self.url, self.key, self.model], connected, **QUIET)

    def target(self, values: dict[Any, Any], info: ServerInfo | None) -> Target:
        """Return the model that is chosen.

        Raises:
            ValueError: There is none to ask; the message is for the reader of the page.
        """
        source = values[self.source]
        if source == "other":
            return self._other(values)
        if info is None:
            raise ValueError("There is no model to ask yet: the server has not answered.")
        return info.at_scale(0.0 if source == "base" else values[self.scale])

    def named(self, values: dict[Any, Any], info: ServerInfo | None) -> dict[Any, Any]:
        """The heading: the title and id of the model that is asked next, or that there is none."""
        try:
            target = self.target(values, info)
        except ValueError:
            return {self.title: transcript.title(self.name, "not connected", "")}
        return {self.title: transcript.title(self.name, target.title, target.model)}

    def offer(self, info: ServerInfo, values: dict[Any, Any], *, moves: bool) -> dict[Any, Any]:
        """Take over what the page's server offers; `moves` puts the slider where `values` has it."""
        updates: dict[Any, Any] = {}
        if values[self.server] is None and not values[self.url]:  # nothing else was named: it is this server
            model = values[self.model] or next(iter(info.models), "")
            updates = {self.server: info.server, self.model: gr.Dropdown(choices=list(info.models), value=model)}
            values = {**values, self.server: info.server, self.model: model}
        if info.dial is None:  # a plain server has nothing but its models
            values = {**values, self.source: "other"}
            updates[self.source] = "other"
        else:
            updates |= self.dial.offer(info.dial, values[self.scale], moves=moves)
        return {**updates, **self.named(values, info)}

    def restored(self, side: SavedSide) -> dict[Any, Any]:
        """The fields' values for a side that the browser kept."""
        scale = {} if side.scale is None else {self.scale: side.scale}
        return {
            self.source: side.source,
            self.url: side.url,
            self.model: side.model,
            self.dial_part: gr.Column(visible=side.source == "dial"),
            self.other_part: gr.Column(visible=side.source == "other"),
            **scale,
        }

    def _unfold(self, source: Source) -> dict[Any, Any]:
        return {
            self.dial_part: gr.Column(visible=source == "dial"),
            self.other_part: gr.Column(visible=source == "other"),
        }

    def _other(self, values: dict[Any, Any]) -> Target:
        server, model = values[self.server], (values[self.model] or "").strip()
        url = self._shared.allow_list.check(values[self.url] or self._shared.settings.api_url)
        if server is None or server.url != url:
            raise ValueError(f"Press “Connect” first: {url} was not asked yet. A key is not kept over a reload.")
        if not model:
            raise ValueError(f"Choose or type the name of a model of {url}.")
        return Target(model, server)

    async def _connect(self, url: str, key: str, model: str, request: gr.Request) -> dict[Any, Any]:
        try:
            url = self._shared.allow_list.check(url or self._shared.settings.api_url)
        except ValueError as error:
            return {self.server: None, self.note: pieces.note(f"{error}.", is_error=True)}
        own = self._shared.server(request)
        server = Server(url, key.strip() or (own.key if url == own.url else NO_KEY))
        info = await self._shared.client.info(server)
        if not info.ready:
            return {self.key: "", self.server: None, self.note: pieces.note(info.problem, is_error=True)}
        chosen = model if model in info.models else next(iter(info.models), model)
        kept = "; the key is kept for this session only" if key.strip() else ""
        return {
            self.key: "",
            self.server: server,
            self.model: gr.Dropdown(choices=list(info.models), value=chosen),
            self.note: pieces.note(f"Connected to {url}{kept}."),
        }
