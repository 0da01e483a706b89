"""Counters of the dial and of refusals, in the registry that vLLM's `/metrics` shows. Labels are few and fixed."""

from http import HTTPStatus

from prometheus_client import Counter, Histogram

from cllm_model.scale import TRAINED_SCALE
from serve.ids import BASE_SCALE

_REQUESTS = Counter("cllm_requests", "Generation requests, by the model that they asked for.", ["kind"])
_SCALES = Histogram(
    "cllm_control_scale",
    "Control scale of generation requests.",
    buckets=(0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2),
)
_REFUSALS = Counter("cllm_refusals", "Requests that were refused or failed, by reason.", ["reason"])
_REASONS: dict[int, str] = {
    HTTPStatus.BAD_REQUEST: "invalid",
    HTTPStatus.UNAUTHORIZED: "key",
    HTTPStatus.NOT_FOUND: "not_found",
    HTTPStatus.REQUEST_TIMEOUT: "slow_body",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "large_body",
    HTTPStatus.TOO_MANY_REQUESTS: "queue",
    HTTPStatus.SERVICE_UNAVAILABLE: "unavailable",
}


def kind_of(scale: float) -> str:
    """Return `base`, `trained` or `other`."""
    return {BASE_SCALE: "base", TRAINED_SCALE: "trained"}.get(scale, "other")


def count_request(scale: float) -> None:
    """Count a generation request."""
    _REQUESTS.labels(kind_of(scale)).inc()
    _SCALES.observe(scale)


def count_refusal(status: int) -> None:
    """Count an answer that is an error."""
    fallback = "failed" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid"
    _REFUSALS.labels(_REASONS.get(status, fallback)).inc()
