"""Routes of this runtime: readiness, what the dial can do, and one model's card."""

from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from vllm.entrypoints.serve.engine.protocol import ErrorResponse, ModelCard

from cllm_model.scale import MIN_SCALE, check_scale
from serve.app.errors import unknown_model
from serve.app.strength import read_strength
from serve.settings import Settings

_CARD: dict[int | str, dict[str, Any]] = {
    HTTPStatus.OK.value: {"model": ModelCard},
    HTTPStatus.NOT_FOUND.value: {"model": ErrorResponse},
}


class Readiness(BaseModel):
    """Answer of `/ready`."""

    ready: bool = Field(description="Whether generation requests are let in.")


class Control(BaseModel):
    """Answer of `/v1/control`."""

    checkpoint: str = Field(description="The first 12 hex digits of the checkpoint's hash, as in the fingerprint.")
    default_scale: float = Field(description="Control scale of requests that name none.")
    recommended_scale: float = Field(description="What the training report recommends; else the default.")
    min: float = Field(description="Smallest control scale.")
    max: float = Field(description="Largest control scale that this server allows.")
    report: dict[str, Any] | None = Field(description="The training report that belongs to this checkpoint.")


_READY: dict[int | str, dict[str, Any]] = {
    status.value: {"model": Readiness} for status in (HTTPStatus.OK, HTTPStatus.SERVICE_UNAVAILABLE)
}

router = APIRouter()


@router.get("/ready", responses=_READY)
async def ready(request: Request) -> JSONResponse:
    """Answer 200 once the engine has answered, 503 before, and again 503 when it failed or the server is to end."""
    engine = request.app.state.engine_client
    return JSONResponse({"ready": engine.is_ready}, status_code=200 if engine.is_ready else 503)


@router.get("/v1/control")
async def control(request: Request) -> Control:
    """Describe the checkpoint and its dial."""
    engine = request.app.state.engine_client
    settings, checkpoint = engine.settings, engine.checkpoint
    return Control(
        checkpoint=checkpoint.digest,
        default_scale=settings.ids.default_scale,
        recommended_scale=_recommended(checkpoint.report, settings),
        min=MIN_SCALE,
        max=settings.max_scale,
        report=checkpoint.report,
    )


def _recommended(report: dict[str, Any] | None, settings: Settings) -> float:
    """What the report says, which nobody has checked, if it is a scale of this server's; else the default."""
    try:
        return check_scale((report or {}).get("recommended_scale"), "recommended_scale", settings.max_scale)
    except ValueError:
        return settings.ids.default_scale


@router.get("/v1/models/{model_id}", responses=_CARD)
async def model(model_id: str, request: Request) -> JSONResponse:
    """Return the card of one model id; NAME@0.5 has one as well, though it is not listed."""
    state = request.app.state
    if read_strength(state.engine_client.settings, model_id) is None:
        return unknown_model(model_id)
    listed = (await state.openai_serving_models.show_available_models()).data
    return JSONResponse(listed[0].model_copy(update={"id": model_id}).model_dump())
