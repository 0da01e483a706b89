"""Routes of this runtime: readiness, what the dial can do, and one model's card."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from cllm_model.scale import MIN_SCALE

router = APIRouter()


@router.get("/ready")
async def ready(request: Request) -> JSONResponse:
    """Answer 200 once the engine has answered, 503 before, and again 503 after it failed."""
    engine = request.app.state.engine_client
    is_ready = engine.has_answered and not engine.errored
    return JSONResponse({"ready": is_ready}, status_code=200 if is_ready else 503)


@router.get("/v1/control")
async def control(request: Request) -> dict[str, Any]:
    """Describe the checkpoint and its dial."""
    engine = request.app.state.engine_client
    settings, checkpoint = engine.settings, engine.checkpoint
    report = checkpoint.report or {}
    return {
        "checkpoint": checkpoint.digest,
        "default_scale": settings.default_scale,
        "recommended_scale": report.get("recommended_scale", settings.default_scale),
        "min": MIN_SCALE,
        "max": settings.max_scale,
        "report": checkpoint.report,
    }


@router.get("/v1/models/{model_id}")
async def model(model_id: str, request: Request) -> JSONResponse:
    """Return the card of one model id."""
    models = request.app.state.openai_serving_models
    if (error := await models.registry.check_model(model_id)) is not None:
        return JSONResponse(error.model_dump(), status_code=error.error.code)
    cards = (await models.show_available_models()).data
    return JSONResponse(next(card for card in cards if card.id == model_id).model_dump())
