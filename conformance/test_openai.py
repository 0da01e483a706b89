"""OpenAI's client in the line that litellm and langchain build on: what `make test` asks of its successor, and keys."""

import asyncio

import openai
import pytest

from conformance.conftest import MAX_QUEUE
from tests.serve.test_openai_client import *  # noqa: F403
from tests.serve.test_openai_client import COUNT


def test_a_wrong_key(server):
    with pytest.raises(openai.AuthenticationError) as error:
        openai.OpenAI(base_url=server.url, api_key="another").models.list()
    assert error.value.body["code"] == 401


async def flood(client, name, requests):
    async with openai.AsyncOpenAI(base_url=client.base_url, api_key=client.api_key, max_retries=0) as flooding:
        asked = {"model": name, "messages": COUNT, "max_tokens": 200, "extra_body": {"ignore_eos": True}}
        answers = [flooding.chat.completions.create(**asked) for _ in range(requests)]
        return await asyncio.gather(*answers, return_exceptions=True)


def test_more_requests_than_the_queue_takes(client, server):
    answers = asyncio.run(flood(client, server.name, 2 * MAX_QUEUE))
    refused = [answer for answer in answers if isinstance(answer, openai.RateLimitError)]
    assert refused and all(int(answer.response.headers["retry-after"]) >= 1 for answer in refused)
    answered = [answer for answer in answers if answer not in refused]
    assert len(answered) >= MAX_QUEUE and all(answer.usage.completion_tokens == 200 for answer in answered)
