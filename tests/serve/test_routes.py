"""Routes: readiness, the dial's description, what is closed, and what a client may not send."""

import pytest

from cllm_model.checkpoint import checkpoint_hash

CHAT = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}
CLOSED = [
    "/v1/responses",
    "/v1/messages",
    "/v1/chat/completions/batch",
    "/v1/chat/completions/render",
    "/inference/v1/generate",
    "/invocations",
    "/generative_scoring",
    "/pooling",
    "/v1/embeddings",
    "/collective_rpc",
    "/v1/load_lora_adapter",
    "/v1/nothing",
]


def test_health_and_readiness(http):
    assert http.get("/health").status_code == 200
    assert http.get("/ready").json() == {"ready": True}
    assert http.get("/metrics").status_code == 200


def test_control(http, server):
    control = http.get("/v1/control").json()
    assert control["checkpoint"] == checkpoint_hash(server.model)
    assert control["default_scale"] == 1
    assert control["min"] == 0 and control["max"] == 2
    assert control["min"] <= control["recommended_scale"] <= control["max"]
    assert control["report"] is None or control["report"]["checkpoint"] == control["checkpoint"]


@pytest.mark.parametrize("path", CLOSED)
def test_closed_routes(http, server, path):
    for body in ({"model": f"{server.name}:base", "prompt": "a", "input": "a"}, CHAT | {"model": server.name}):
        answer = http.post(path, json=body)
        assert answer.status_code == 404
        assert answer.json()["error"]["type"] == "NotFoundError"
    assert http.get(path).status_code == 404


def test_only_open_routes_are_documented(http):
    paths = http.get("/openapi.json").json()["paths"]
    assert {"/v1/chat/completions", "/v1/completions", "/v1/models", "/v1/models/{model_id}", "/ready"} <= set(paths)
    assert not set(paths) & set(CLOSED)
    for path in paths:
        assert http.get(path).status_code != 404 or "{" in path


def test_a_wrong_method_is_told_the_right_ones(http):
    for method, path, allowed in (
        ("PUT", "/ping", "GET, POST"),
        ("GET", "/v1/completions", "POST"),
        ("DELETE", "/v1/models/x", "GET"),
        ("TRACE", "/metrics", "GET, HEAD"),
        ("POST", "/metrics/", "GET, HEAD"),
    ):
        answer = http.request(method, path)
        assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
        assert answer.json()["error"]["code"] == 405


def test_clients_cannot_set_what_the_server_sets(http, server):
    for path, body in (("/v1/chat/completions", CHAT), ("/v1/completions", {"prompt": "a", "max_tokens": 1})):
        answer = http.post(path, json=body | {"model": server.name, "vllm_xargs": {"control_scale": 0.0}})
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == "vllm_xargs.control_scale"


def test_malformed_requests_are_400(http, server):
    for body in ({"model": server.name}, {"model": server.name, "messages": [], "max_tokens": -1}):
        answer = http.post("/v1/chat/completions", json=body)
        assert answer.status_code == 400 and answer.json()["error"]["message"]


def test_a_salt_of_the_clients_own_is_kept(http, server):
    for salt in ("mine", "x" * 100):
        body = CHAT | {"model": server.name, "cache_salt": salt}
        assert http.post("/v1/chat/completions", json=body).status_code == 200
