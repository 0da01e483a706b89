"""The HTTP side of the page: asks OpenAI-compatible servers what they serve, and streams answers from them.

Knows no Gradio. `ask` never raises for a server's fault: it ends the `Answer` as failed, with a sentence that
a reader of the page can act on. Cancelling `ask` closes the HTTP stream, which makes the engine stop. A redirect
is never followed: it could lead where the page may not go.
"""

import logging
import time
from asyncio import CancelledError
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import openai
from pydantic import BaseModel, Field

from ui.answer import Answer, Sampling, Usage, WrongModel
from ui.info import ServerInfo, read_info
from ui.servers import NO_KEY, Server, is_loopback

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 5.0
SILENCE_TIMEOUT_S = 300.0  # the longest wait for the next byte: a queue or a long prompt takes time
MAX_CHARACTERS = 500_000  # of an answer; a server that never ends must not fill the memory
Message = dict[str, str]


class _Delta(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    delta: _Delta
    finish_reason: str | None = None


class _Chunk(BaseModel):
    """What is read of a chunk; OpenAI's client does not check what it hands on."""

    model: str = Field(min_length=1)
    system_fingerprint: str | None = None
    choices: list[_Choice] | None = None
    usage: Usage | None = None


class ChatClient:
    """Asks any server. Connections to one address are shared by all sessions of the page."""

    def __init__(self) -> None:
        """Connect to nothing yet."""
        self._pools: dict[str, openai.AsyncOpenAI] = {}

    async def info(self, server: Server) -> ServerInfo:
        """Ask for readiness, models, dial and report; a fault becomes `problem`."""
        try:
            await self._get(server, server.root + "/ready", missing_is_fine=True)
            models = await self._get(server, "/models")
            control = await self._get(server, "/control", missing_is_fine=True)
            return read_info(server, models, control)
        except openai.APIError as error:
            return ServerInfo(server, problem=explain(error, server))
        except ValueError:
            return ServerInfo(server, problem=f"What answers at {server.url} is not an OpenAI-compatible server.")

    async def accepts_key(self, server: Server) -> bool:
        """Whether the server answers to this key, or asks for none."""
        try:
            await self._get(server, "/models")
        except openai.APIError as error:
            logger.info("%s: %s", server.url, type(error).__name__)
            return False
        return True

    async def ask(self, answer: Answer, messages: list[Message]) -> None:
        """Stream the reply to `messages` into `answer`."""
        target, turn = answer.target, answer.turn
        request = {"model": target.model, "messages": messages, **_sampled(turn.sampling, target.context)}
        begun = time.perf_counter()
        try:
            stream = await self._connection(target.server).chat.completions.create(**request)
            async with stream:
                async for chunk in stream:
                    _take(answer, chunk, time.perf_counter() - begun)
                    if len(turn.text) > MAX_CHARACTERS:
                        break
        except CancelledError:
            answer.end("stopped")
            raise
        except WrongModel as error:
            turn.text = ""
            answer.end("failed", f"{error} Its text is not shown.")
        except openai.APIError as error:
            logger.info("%s: %s", target.model, type(error).__name__)
            answer.end("failed", explain(error, target.server, turn.tokens))
        except ValueError:
            answer.end("failed", "The server sent something that is not a chat completion stream.")
        else:
            _conclude(answer)

    def _connection(self, server: Server) -> openai.AsyncOpenAI:
        if server.url not in self._pools:
            self._pools[server.url] = _connect(server.url)
        return self._pools[server.url].with_options(api_key=server.key)

    async def _get(self, server: Server, path: str, *, missing_is_fine: bool = False) -> Any:
        try:
            return await self._connection(server).get(path, cast_to=object, options={"timeout": CONNECT_TIMEOUT_S})
        except openai.NotFoundError:
            if missing_is_fine:
                return None
            raise


def explain(error: openai.APIError, server: Server, tokens: int = 0) -> str:
    """Return one sentence for the reader of the page.

    Args:
        error: What went wrong.
        server: Who was asked.
        tokens: Number of tokens that had come.
    """
    if tokens and not isinstance(error, openai.APIStatusError):
        detail = "" if isinstance(error, openai.APIConnectionError) else f" {error.message}"
        return f"The stream broke off after {tokens} tokens.{detail}"
    if isinstance(error, openai.APITimeoutError):
        return f"The server at {server.url} did not answer in time."
    if isinstance(error, openai.APIConnectionError):
        return f"No server answers at {server.url}."
    if isinstance(error, openai.APIStatusError):
        return _refused(error, server)
    return f"The server reported an error: {error.message}"


def _refused(error: openai.APIStatusError, server: Server) -> str:
    status = error.status_code
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        return "The server is not ready: it is still loading, or full. Try again in a moment."
    if status == HTTPStatus.UNAUTHORIZED:
        return f"The server at {server.url} does not accept the API key."
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        return f"The server at {server.url} redirects elsewhere, which is not followed."
    body = error.body
    message = body.get("message") if isinstance(body, dict) else None
    return f"The server refused with HTTP {status}: {str(message or error.message)[:500]}"


def _sampled(sampling: Sampling, context: int | None) -> dict[str, Any]:
    request: dict[str, Any] = {
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": sampling.temperature,
    }
    if sampling.top_p != 1:
        request["top_p"] = sampling.top_p
    if sampling.seed is not None:
        request["seed"] = sampling.seed
    # Where the context ends an answer sooner, the limit says nothing, and servers refuse it.
    if sampling.max_tokens is not None and (context is None or sampling.max_tokens < context):
        request["max_tokens"] = sampling.max_tokens
    return request


def _take(answer: Answer, received: Any, at: float) -> None:
    chunk = _Chunk.model_validate(received, from_attributes=True)
    answer.check(chunk.model, chunk.system_fingerprint)
    for choice in chunk.choices or ():
        if choice.delta.content:
            answer.add(choice.delta.content, at)
        answer.turn.finish_reason = choice.finish_reason or answer.turn.finish_reason
    if chunk.usage is not None:
        answer.count(chunk.usage)


def _conclude(answer: Answer) -> None:
    if len(answer.turn.text) > MAX_CHARACTERS:
        answer.end("failed", f"The answer was broken off: it is longer than {MAX_CHARACTERS} characters.")
    elif answer.turn.finish_reason:
        answer.end("done")
    else:
        answer.end("failed", f"The stream broke off after {answer.turn.tokens} tokens.")


def _connect(url: str) -> openai.AsyncOpenAI:
    timeout = openai.Timeout(SILENCE_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
    through_proxy = not is_loopback(urlsplit(url).hostname)
    client = openai.DefaultAsyncHttpxClient(timeout=timeout, follow_redirects=False, trust_env=through_proxy)
    return openai.AsyncOpenAI(base_url=url, api_key=NO_KEY, max_retries=0, timeout=timeout, http_client=client)
