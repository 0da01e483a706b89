"""Every answer says which checkpoint and control scale made it, by OpenAI's field `system_fingerprint`.

vLLM has one fingerprint for all answers; it is switched off, see `serve.options`, and this one is put in its place.
"""

import json
from collections.abc import AsyncGenerator
from typing import Any

from fastapi import Request
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest, ChatCompletionResponse
from vllm.entrypoints.openai.completion.protocol import CompletionRequest, CompletionResponse

from serve.app.strength import asked_for

_CHUNK = 'data: {"id":'


def fingerprint(digest: str, scale: float) -> str:
    """Return `cllm-<12 hex>-s<scale>`."""
    return f"cllm-{digest}-s{scale:g}"


class Stamped:
    """One of vLLM's request handlers, with the fingerprint in its answers and in each chunk of its streams.

    Args:
        handler: vLLM's handler of chats or of completions.
        digest: The checkpoint's hash.
    """

    def __init__(self, handler: Any, digest: str) -> None:
        self._handler = handler
        self._digest = digest

    async def create_chat_completion(self, request: ChatCompletionRequest, raw_request: Request) -> Any:
        """Answer a chat."""
        return self._stamp(await self._handler.create_chat_completion(request, raw_request))

    async def create_completion(self, request: CompletionRequest, raw_request: Request) -> Any:
        """Continue a text."""
        return self._stamp(await self._handler.create_completion(request, raw_request))

    def _stamp(self, answer: Any) -> Any:
        mark = fingerprint(self._digest, asked_for().scale)
        if isinstance(answer, ChatCompletionResponse | CompletionResponse):
            answer.system_fingerprint = mark
        elif isinstance(answer, AsyncGenerator):
            return _stamp_stream(answer, mark)
        return answer


async def _stamp_stream(events: AsyncGenerator[str, None], mark: str) -> AsyncGenerator[str, None]:
    """Put the fingerprint into each chunk; errors and the end of the stream have none."""
    stamped = f'data: {{"system_fingerprint":{json.dumps(mark)},"id":'
    try:
        async for event in events:
            yield stamped + event.removeprefix(_CHUNK) if event.startswith(_CHUNK) else event
    finally:
        await events.aclose()
