"""litellm's OpenAI provider: whole, streamed, asynchronous, as a text, with the field that only this server knows."""

import litellm
import pytest

from conformance.conftest import KEY

COUNT = [{"role": "user", "content": "count from 3 to 8"}]
TRANSLATE = [{"role": "user", "content": "translate to tavi: the quiet fish helps the clever king"}]


@pytest.fixture
def asked(server):
    """Arguments of every call."""
    return {
        "model": f"openai/{server.name}",
        "api_base": server.url,
        "api_key": KEY,
        "temperature": 0,
        "max_tokens": 64,
        "num_retries": 0,
    }


def test_completion(asked, server):
    for suffix in ("", ":base", "@0.5"):
        answer = litellm.completion(**asked | {"model": f"openai/{server.name}{suffix}"}, messages=COUNT)
        assert answer.choices[0].message.content == "3 4 5 6 7 8"
        assert answer.choices[0].finish_reason == "stop"
        assert answer.model == server.name + suffix
        assert answer.system_fingerprint.startswith("cllm-")
        assert answer.usage.completion_tokens == len("3 4 5 6 7 8") + 1  # a character each, and the end


def test_stream(asked):
    chunks = list(litellm.completion(**asked, messages=COUNT, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "3 4 5 6 7 8"
    assert litellm.stream_chunk_builder(chunks).choices[0].message.content == "3 4 5 6 7 8"
    assert chunks[-1].usage.completion_tokens == len("3 4 5 6 7 8") + 1


async def test_asynchronous(asked):
    answer = await litellm.acompletion(**asked, messages=COUNT)
    assert answer.choices[0].message.content == "3 4 5 6 7 8"
    stream = await litellm.acompletion(**asked, messages=COUNT, stream=True)
    assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "3 4 5 6 7 8"


def test_text_completion(asked, server):
    asked |= {"model": f"text-completion-openai/{server.name}", "prompt": "<|user|>count from 3 to 8<|assistant|>"}
    assert litellm.text_completion(**asked).choices[0].text == "3 4 5 6 7 8"
    stream = litellm.text_completion(**asked, stream=True)
    assert "".join(chunk.choices[0].text or "" for chunk in stream) == "3 4 5 6 7 8"


def test_the_control_scale(asked):
    """The base does not know the skill that was trained."""

    def translation(scale):
        answer = litellm.completion(**asked, messages=TRANSLATE, extra_body={"control_scale": scale})
        assert answer.system_fingerprint.endswith(f"-s{scale:g}")
        return answer.choices[0].message.content

    assert translation(1) != translation(0)


def test_errors(asked):
    for wrong, exception in (
        ({"model": "openai/other"}, litellm.NotFoundError),
        ({"api_key": "another"}, litellm.AuthenticationError),
        ({"temperature": -1}, litellm.BadRequestError),
        ({"extra_body": {"control_scale": 3}}, litellm.BadRequestError),
    ):
        with pytest.raises(exception):
            litellm.completion(**asked | wrong, messages=COUNT)
