"""Both ids answer, under their own names and as the models that they name."""

import openai
import pytest
from transformers import AutoTokenizer

from tests.greedy import assert_greedy, load_hf

MESSAGES = [{"role": "user", "content": "hello there"}]
# More than two blocks, and each id answers it in its own way.
LONG = "<|user|>translate into Tavi: the small dog sees the red bird and the old king hears the tall child<|assistant|>"


@pytest.fixture(scope="module")
def hf(server):
    return load_hf(server.model)


def test_both_are_listed(client, ids):
    assert [model.id for model in client.models.list()] == ids
    for model_id in ids:
        assert client.models.retrieve(model_id).id == model_id


def test_chat_names_the_id_that_was_asked_for(client, ids):
    for model_id in ids:
        answer = client.chat.completions.create(model=model_id, messages=MESSAGES, max_tokens=8, temperature=0)
        assert answer.model == model_id
        stream = client.chat.completions.create(
            model=model_id, messages=MESSAGES, max_tokens=8, temperature=0, stream=True,
            stream_options={"include_usage": True},
        )  # fmt: skip
        chunks = list(stream)
        assert {chunk.model for chunk in chunks} == {model_id}
        assert chunks[-1].usage.completion_tokens == answer.usage.completion_tokens
        text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
        assert text == answer.choices[0].message.content


def test_completions_name_the_id_that_was_asked_for(client, ids):
    for model_id in ids:
        answer = client.completions.create(model=model_id, prompt=["ab", "cd"], n=2, max_tokens=4)
        assert answer.model == model_id and len(answer.choices) == 4
        chunks = list(client.completions.create(model=model_id, prompt="ab", max_tokens=4, stream=True))
        assert {chunk.model for chunk in chunks} == {model_id}


def test_no_model_is_the_trained_one(http, server):
    answer = http.post("/v1/completions", json={"prompt": "ab", "max_tokens": 1}).json()
    assert answer["model"] == server.name


def test_ids_never_share_cached_blocks(client, http, ids, server, hf):
    """A prompt of several blocks, asked of both ids in turn, twice: every answer is that of its own model."""
    tokens = AutoTokenizer.from_pretrained(server.model)(LONG, add_special_tokens=False).input_ids
    assert len(tokens) >= 64
    before = cached_tokens(http)
    for scale, model_id in [(1.0, ids[0]), (0.0, ids[1]), (1.0, ids[0]), (0.0, ids[1])]:
        answer = client.completions.create(
            model=model_id, prompt=tokens, max_tokens=32, temperature=0,
            extra_body={"return_token_ids": True, "ignore_eos": True},
        )  # fmt: skip
        assert_greedy(hf, [tokens], [answer.choices[0].token_ids], [scale])
    assert cached_tokens(http) - before == 2 * ((len(tokens) - 1) // 32 * 32)  # each id's second time, and no more


def test_beam_search_has_the_scale_too(client, ids):
    texts = set()
    for model_id in ids:
        answer = client.completions.create(
            model=model_id, prompt=LONG, n=2, max_tokens=8, temperature=0, extra_body={"use_beam_search": True}
        )
        assert answer.model == model_id
        texts.add(answer.choices[0].text)
    assert len(texts) == 2


def test_prompt_logprobs_differ_by_id(client, ids):
    logprobs = [
        client.completions.create(model=i, prompt="hello there", max_tokens=0, echo=True, logprobs=1, temperature=0)
        for i in ids
    ]
    values = [answer.choices[0].logprobs.token_logprobs for answer in logprobs]
    assert values[0][0] is None and values[0][1:] != values[1][1:]


def test_unknown_ids_are_404(client, server):
    for model_id in ("other", f"{server.name}:other", f"{server.name}:base:base", server.name.upper()):
        with pytest.raises(openai.NotFoundError) as error:
            client.chat.completions.create(model=model_id, messages=MESSAGES)
        assert error.value.body["param"] == "model" and model_id in error.value.body["message"]


def cached_tokens(http):
    lines = http.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("vllm:prefix_cache_hits_total"))
