"""What OpenAI's own client reads from answers: its typed fields, streams, options and errors.

`make test` runs this with the client that the server's environment holds, `make conformance` with the older line that
other libraries still build on. Uses the fixtures `client` and `server` only.
"""

import asyncio

import openai
import pytest

COUNT = [{"role": "user", "content": "count from 3 to 8"}]
MORE = {"extra_body": {"ignore_eos": True}}


@pytest.fixture
def name(server):
    return server.name


def test_models(client, name):
    cards = list(client.models.list())
    assert [card.id for card in cards] == [name, f"{name}:base"]
    for model in (name, f"{name}:base", f"{name}@0.5"):
        card = client.models.retrieve(model)
        assert (card.id, card.object) == (model, "model") and card.owned_by and card.created


@pytest.mark.parametrize("suffix", ["", ":base", "@0.5"])
def test_a_chat_whole_and_streamed(client, name, suffix):
    asked = {"model": name + suffix, "messages": COUNT, "max_tokens": 12, "temperature": 0}
    answer = client.chat.completions.create(**asked, **MORE)
    assert (answer.model, answer.object) == (name + suffix, "chat.completion")
    assert answer.choices[0].finish_reason == "length" and answer.choices[0].message.role == "assistant"
    assert answer.usage.completion_tokens == 12
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 12
    chunks = list(client.chat.completions.create(**asked, **MORE, stream=True, stream_options={"include_usage": True}))
    *parts, last = chunks
    assert "".join(part.choices[0].delta.content or "" for part in parts) == answer.choices[0].message.content
    assert [part.choices[0].finish_reason for part in parts][-1] == "length"
    assert not any(part.usage for part in parts)
    assert not last.choices and last.usage == answer.usage
    assert {chunk.system_fingerprint for chunk in chunks} == {answer.system_fingerprint}
    assert len({chunk.id for chunk in chunks}) == 1


@pytest.mark.parametrize("suffix", ["", ":base", "@0.5"])
def test_a_completion_whole_and_streamed(client, name, suffix):
    asked = {"model": name + suffix, "prompt": "ab", "max_tokens": 6, "temperature": 0}
    answer = client.completions.create(**asked, **MORE)
    assert (answer.model, answer.object, answer.usage.completion_tokens) == (name + suffix, "text_completion", 6)
    *parts, last = client.completions.create(**asked, **MORE, stream=True, stream_options={"include_usage": True})
    assert "".join(part.choices[0].text for part in parts) == answer.choices[0].text
    assert last.usage == answer.usage


def test_the_scale_as_a_field_is_the_scale_of_an_id(client, name):
    def scored(model, **more):
        answer = client.completions.create(
            model=model, prompt="hello there", max_tokens=0, echo=True, logprobs=1, **more
        )
        return answer.system_fingerprint, answer.choices[0].logprobs.token_logprobs[1:]

    found = []
    for suffix, scale in ((":base", 0), ("@0.5", 0.5), ("", 1)):
        fingerprint, logprobs = scored(name, extra_body={"control_scale": scale})
        assert scored(name + suffix) == (fingerprint, pytest.approx(logprobs, abs=1e-4))
        found.append(logprobs)
    for logprobs in found[:2]:
        assert logprobs != pytest.approx(found[2], abs=1e-2)


def test_n_answers_and_their_seed(client, name):
    def sampled(seed):
        asked = {"model": name, "messages": COUNT, "n": 3, "temperature": 2.0, "max_tokens": 16, "seed": seed}
        choices = client.chat.completions.create(**asked, **MORE).choices
        assert [choice.index for choice in choices] == [0, 1, 2]
        return [choice.message.content for choice in choices]

    first = sampled(7)
    assert len(set(first)) == 3 and sampled(7) == first and sampled(8) != first


def test_stop_strings(client, name):
    asked = {"model": name, "prompt": "ab", "max_tokens": 32, "temperature": 0}
    whole = client.completions.create(**asked, **MORE).choices[0].text
    stop = whole[8:10]
    stopped = client.completions.create(**asked, **MORE, stop=[stop, "\x7f"]).choices[0]
    assert stopped.text == whole[: whole.index(stop)] and stopped.finish_reason == "stop"
    streamed = list(client.completions.create(**asked, **MORE, stop=stop, stream=True))
    assert "".join(part.choices[0].text for part in streamed) == stopped.text


def test_logprobs_of_a_chat_and_of_a_completion(client, name):
    asked = {"model": name, "max_tokens": 4, "temperature": 0, **MORE}
    chat = client.chat.completions.create(messages=COUNT, logprobs=True, top_logprobs=3, **asked).choices[0]
    assert len(chat.logprobs.content) == 4
    for token in chat.logprobs.content:
        assert token.logprob == max(top.logprob for top in token.top_logprobs) <= 0 and len(token.top_logprobs) == 3
    assert "".join(token.token for token in chat.logprobs.content) == chat.message.content
    completion = client.completions.create(prompt="ab", logprobs=2, **asked).choices[0]
    assert "".join(completion.logprobs.tokens) == completion.text
    assert completion.logprobs.text_offset == [0, 1, 2, 3]
    for logprob, top in zip(completion.logprobs.token_logprobs, completion.logprobs.top_logprobs, strict=True):
        assert logprob == max(top.values()) <= 0


def test_an_answer_that_keeps_to_a_schema(client, name):
    schema = {"name": "verdict", "schema": {"type": "string", "enum": ["right", "wrong"]}}
    wanted = {"type": "json_schema", "json_schema": schema}
    answer = client.chat.completions.create(model=name, messages=COUNT, response_format=wanted)
    assert answer.choices[0].message.content in ('"right"', '"wrong"')


async def ask(client, name):
    async with openai.AsyncOpenAI(base_url=client.base_url, api_key=client.api_key) as other:
        asked = {"model": name, "messages": COUNT, "max_tokens": 8, "temperature": 0}
        answer = await other.chat.completions.create(**asked)
        stream = await other.chat.completions.create(**asked, stream=True)
        return answer.choices[0].message.content, [chunk.choices[0].delta.content or "" async for chunk in stream]


def test_the_asynchronous_client(client, name):
    whole, parts = asyncio.run(ask(client, name))
    assert "".join(parts) == whole


@pytest.mark.parametrize(
    ("wrong", "exception", "param"),
    [
        ({"model": "other"}, openai.NotFoundError, "model"),
        ({"temperature": -1}, openai.BadRequestError, "temperature"),
        ({"max_tokens": 10**6}, openai.BadRequestError, "max_tokens"),
        ({"n": 17}, openai.BadRequestError, "n"),
        ({"extra_body": {"control_scale": 3}}, openai.BadRequestError, "control_scale"),
        ({"extra_body": {"unknown": 1}}, openai.BadRequestError, "body.unknown"),
        ({"messages": []}, openai.BadRequestError, None),
        ({"messages": [{"role": "user", "content": "a" * 300}]}, openai.BadRequestError, "input_tokens"),
    ],
    ids=lambda value: str(value)[:40],
)
@pytest.mark.parametrize("stream", [False, True])
def test_errors_are_the_exceptions_that_clients_know(client, name, wrong, exception, param, stream):
    with pytest.raises(exception) as error:
        client.chat.completions.create(**{"model": name, "messages": COUNT} | wrong, stream=stream)
    assert error.value.status_code == error.value.body["code"] and error.value.request_id
    assert error.value.body["message"] and error.value.param == param
