"""The dial over HTTP: three ways to ask for a strength, one strength in effect, and proof of it in every answer."""

import json

import openai
import pytest
from transformers import AutoTokenizer

from cllm_model.checkpoint import checkpoint_hash
from tests.greedy import assert_greedy, load_hf

MESSAGES = [{"role": "user", "content": "hello there"}]
# More than two blocks, and each id answers it in its own way.
LONG = "<|user|>translate into Tavi: the small dog sees the red bird and the old king hears the tall child<|assistant|>"
ROUTES = {"/v1/chat/completions": {"messages": MESSAGES}, "/v1/completions": {"prompt": "ab"}}
BAD_SCALES = ['"0.5"', "true", "NaN", "Infinity", "-Infinity", "-1", "3", "1e-9", "-1e-9", "1e400", "[0.5]", "{}", '""']


@pytest.fixture(scope="module")
def hf(server):
    return load_hf(server.model)


@pytest.fixture(scope="module")
def mark(server):
    return f"cllm-{checkpoint_hash(server.model)}-s"


def test_each_way_to_ask_is_that_model(client, server, hf):
    """A prompt of several blocks, at five scales, asked by id and by field in turn, so that the second is cached."""
    tokens = AutoTokenizer.from_pretrained(server.model)(LONG, add_special_tokens=False).input_ids
    options = {"return_token_ids": True, "ignore_eos": True}
    for scale in (0, 0.25, 0.5, 1, 1.5):
        for model, field in ((f"{server.name}@{scale}", {}), (server.name, {"control_scale": scale})):
            answer = client.completions.create(
                model=model, prompt=tokens, max_tokens=16, temperature=0, extra_body=options | field
            )
            assert answer.model == model
            assert_greedy(hf, [tokens], [answer.choices[0].token_ids], [scale])


@pytest.mark.parametrize(
    ("suffix", "field", "scale"),
    [
        ("", None, "1"),
        (":base", None, "0"),
        ("@0.5", None, "0.5"),
        ("@0.50", 0.5, "0.5"),
        ("", 0, "0"),
        ("", 1.23456, "1.2346"),
        (":base", 0.0, "0"),
        ("@0.5", 0.50001, "0.5"),
        ("@2", None, "2"),
        ("", 0.0001, "0.0001"),
    ],
)
def test_every_answer_and_every_chunk_proves_its_scale(client, server, mark, suffix, field, scale):
    asked = {"model": server.name + suffix, "max_tokens": 4, "extra_body": {"control_scale": field}}
    usage = {"stream": True, "stream_options": {"include_usage": True}}
    routes = ((client.chat.completions.create, {"messages": MESSAGES}), (client.completions.create, {"prompt": "ab"}))
    for create, prompt in routes:
        answers = [
            create(**asked, **prompt),
            *create(**asked, **prompt, **usage),
            *create(**asked, **prompt, stream=True),
        ]
        assert len(answers) > 6
        assert {answer.system_fingerprint for answer in answers} == {mark + scale}
        assert {answer.model for answer in answers} == {asked["model"]}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("scale", BAD_SCALES)
def test_scales_that_are_not_allowed(http, server, route, scale):
    body = json.dumps(ROUTES[route] | {"model": server.name, "max_tokens": 1})[:-1] + f', "control_scale": {scale}}}'
    answer = http.post(route, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "control_scale" and "allowed" in answer.json()["error"]["message"]


@pytest.mark.parametrize(("suffix", "field"), [("@0.5", 0.4), ("@1", 0), (":base", 1), ("@0.5", 0.5001)])
def test_an_id_and_a_field_that_disagree(client, server, suffix, field):
    with pytest.raises(openai.BadRequestError) as error:
        client.completions.create(model=server.name + suffix, prompt="a", extra_body={"control_scale": field})
    assert error.value.body["param"] == "control_scale"


@pytest.mark.parametrize("suffix", ["@", "@x", "@3", "@1e-1", "@-1", "@0.00001"])
def test_ids_whose_scale_is_not_allowed(client, server, suffix):
    for ask in (client.models.retrieve, lambda model: client.completions.create(model=model, prompt="a")):
        with pytest.raises(openai.BadRequestError) as error:
            ask(server.name + suffix)
        assert error.value.body["param"] == "model"


def test_an_id_of_any_scale_has_a_card(client, server):
    assert client.models.retrieve(f"{server.name}@0.5").id == f"{server.name}@0.5"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other@0.5")


def test_the_field_is_documented(http):
    document = http.get("/openapi.json").json()
    for route in ROUTES:
        body = document["paths"][route]["post"]["requestBody"]["content"]["application/json"]["schema"]
        schema = document["components"]["schemas"][body["$ref"].split("/")[-1]]
        number = {"type": "number", "minimum": 0, "maximum": 2}
        assert schema["properties"]["control_scale"]["anyOf"] == [number, {"type": "null"}]
        assert "/v1/control" in schema["properties"]["control_scale"]["description"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("control_scal", 0.5),
        ("guided_regex", "a+"),
        ("kv_transfer_params", {"a": 1}),
        ("return_token_offsets", True),
    ],
)
def test_what_would_be_ignored_is_refused(http, server, field, value):
    for route, prompt in ROUTES.items():
        answer = http.post(route, json=prompt | {"model": server.name, "max_tokens": 1, field: value})
        assert answer.status_code == 400 and field in answer.json()["error"]["param"]


def test_what_a_beam_search_would_ignore_is_refused(http, server):
    body = {"model": server.name, "prompt": "a", "max_tokens": 1, "use_beam_search": True}
    for field, value in (("stop", "a"), ("seed", 1), ("top_p", 0.5), ("logit_bias", {"3": 1})):
        answer = http.post("/v1/completions", json=body | {field: value})
        assert answer.status_code == 400 and answer.json()["error"]["param"] == field
