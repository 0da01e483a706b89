"""What a server serves, read from `/v1/models` and, where it is one of ours, `/v1/control`. Knows no network."""

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.dataclasses import dataclass as checked_dataclass

from ui.answer import Target
from ui.report import Report, read_report
from ui.servers import Server

BASE_SUFFIX = ":base"
_SCALE_DIGITS = 4  # the server rounds scales to 1e-4
_DIAL_FIELDS = {"default_scale": "default", "recommended_scale": "recommended", "min": "least", "max": "most"}


@checked_dataclass(frozen=True)
class Dial:
    """The control scales that a server offers.

    Args:
        name: NAME of its model ids.
        default: Scale that NAME itself stands for.
        recommended: Scale that the training report recommends.
        least: Smallest scale.
        most: Largest scale.
    """

    name: str
    default: float = 1.0
    recommended: float = 1.0
    least: float = 0.0
    most: float = 2.0

    def rounded(self, scale: float) -> float:
        """Return a scale as the server rounds it.

        Raises:
            ValueError: It is not on the dial, or would be taken for the base model.
        """
        if not self.least <= scale <= self.most:
            raise ValueError(f"Control scale must be from {self.least:g} to {self.most:g}.")
        rounded = round(scale, _SCALE_DIGITS)
        if scale and not rounded:
            raise ValueError(f"Control scale {scale:g} would be rounded to 0, which is the base model.")
        return rounded

    def model_at(self, scale: float) -> str:
        """Return the id of the model at a scale of the dial."""
        scale = self.rounded(scale)
        if scale == 0:
            return self.name + BASE_SUFFIX
        if scale == self.default:
            return self.name
        return f"{self.name}@{f'{scale:.{_SCALE_DIGITS}f}'.rstrip('0').rstrip('.')}"


class _Card(BaseModel):
    id: str
    max_model_len: int | None = None


class _Cards(BaseModel):
    data: list[_Card]


@dataclass(frozen=True)
class ServerInfo:
    """What a server serves, or the reason why nothing can be asked of it yet."""

    server: Server
    problem: str = ""
    models: tuple[str, ...] = ()
    dial: Dial | None = None
    checkpoint: str = ""
    context: int | None = None
    report: Report | None = None

    @property
    def ready(self) -> bool:
        """Whether a model can be asked."""
        return not self.problem

    def usable_dial(self) -> Dial:
        """Return the dial.

        Raises:
            ValueError: The server cannot be asked, or has no dial.
        """
        if self.problem:
            raise ValueError(self.problem)
        if self.dial is None:
            listed = ", ".join(self.models) or "no model"
            raise ValueError(
                f"{self.server.url} has no dial (it lists {listed}): ask it as “Other”, by a model's name."
            )
        return self.dial

    def at_scale(self, scale: float) -> Target:
        """Return the model at a control scale.

        Raises:
            ValueError: The server cannot be asked, has no dial, or none that goes there.
        """
        dial = self.usable_dial()
        return Target(dial.model_at(scale), self.server, dial.rounded(scale), self.context)


def read_info(server: Server, models: Any, control: Any) -> ServerInfo:
    """Return what the two routes say; a server without dial is one that may be asked by model ids.

    Raises:
        ValueError: The list of models has another shape than OpenAI's, or the dial another than ours.
    """
    cards = {card.id: card for card in _Cards.model_validate(models).data}
    name = next((name for name in cards if name + BASE_SUFFIX in cards), None)
    known = ServerInfo(server, models=tuple(cards))
    if name is None or not isinstance(control, dict):
        return known
    scales = {field: control[key] for key, field in _DIAL_FIELDS.items() if control.get(key) is not None}
    dial = Dial(name, **{"recommended": scales.get("default", Dial.default), **scales})
    if not dial.least < dial.most:
        raise ValueError(f"a dial from {dial.least} to {dial.most}")
    return ServerInfo(
        server,
        models=known.models,
        dial=dial,
        checkpoint=str(control.get("checkpoint") or ""),
        context=cards[name].max_model_len,
        report=read_report(control.get("report")),
    )
