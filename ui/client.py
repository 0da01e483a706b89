"""The HTTP side of the page: asks an OpenAI-compatible server what it serves, and streams answers from it.

Knows no Gradio. `ask` never raises for a server's fault: it ends the `Answer` as failed, with a sentence that
a reader of the page can act on. Cancelling `ask` closes the HTTP stream, which makes the engine stop.
"""

import logging
import time
from asyncio import CancelledError
from dataclasses import dataclass
from typing import Any

import openai

from ui.answer import Answer, Target, WrongModel
from ui.report import Report, read_report
from ui.settings import Settings

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 5.0
SILENCE_TIMEOUT_S = 300.0  # the longest wait for the next byte: a queue or a long prompt takes time
SHORT_CONTEXT = 4096
BASE_SUFFIX = ":base"
Message = dict[str, str]


@dataclass(frozen=True)
class ServerInfo:
    """What the server serves, or the reason why nothing can be asked of it yet."""

    problem: str = ""
    base: Target | None = None
    control: Target | None = None
    report: Report | None = None

    @property
    def ready(self) -> bool:
        """Whether both models can be asked."""
        return not self.problem


class ChatClient:
    """One server. The connection pool is shared by all sessions of the page."""

    def __init__(self, settings: Settings) -> None:
        """Prepare the connection; nothing is sent."""
        self.settings = settings
        timeout = openai.Timeout(SILENCE_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        self._openai = openai.AsyncOpenAI(
            base_url=settings.api_url,
            api_key=settings.api_key,
            max_retries=0,
            timeout=timeout,
            http_client=openai.DefaultAsyncHttpxClient(timeout=timeout, trust_env=not settings.api_is_local),
        )

    async def info(self) -> ServerInfo:
        """Ask for readiness, models and report; a fault becomes `problem`."""
        try:
            await self._get(self.settings.server_root + "/ready", missing_is_fine=True)
            models = await self._get("/models")
            control = await self._get("/control", missing_is_fine=True)
        except openai.APIError as error:
            return ServerInfo(problem=self.explain(error))
        cards = {card["id"]: card for card in models["data"]} if isinstance(models, dict) else {}
        name = next((name for name in cards if name + BASE_SUFFIX in cards), None)
        if name is None:
            listed = ", ".join(cards) or "no model"
            problem = f"{self.settings.api_url} lists {listed}, but no NAME with its NAME{BASE_SUFFIX}."
            return ServerInfo(problem=problem)
        control = control if isinstance(control, dict) else {}
        context = cards[name].get("max_model_len") or SHORT_CONTEXT
        room = self.settings.max_tokens if context >= SHORT_CONTEXT else None
        return ServerInfo(
            base=Target(name + BASE_SUFFIX, 0.0, room),
            control=Target(name, control.get("default_scale"), room),
            report=read_report(control.get("report")),
        )

    async def ask(self, answer: Answer, messages: list[Message]) -> None:
        """Stream the reply to `messages` into `answer`."""
        request: dict[str, Any] = {
            "model": answer.target.model,
            "messages": messages,
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": self.settings.temperature,
        }
        if answer.target.max_tokens is not None:
            request["max_tokens"] = answer.target.max_tokens
        begun = time.perf_counter()
        try:
            stream = await self._openai.chat.completions.create(**request)
            async with stream:
                async for chunk in stream:
                    _take(answer, chunk, time.perf_counter() - begun)
        except CancelledError:
            answer.end("stopped")
            raise
        except WrongModel as error:
            answer.text = ""
            answer.end("failed", f"{error} Its text is not shown.")
        except openai.APIError as error:
            logger.info("%s: %s", answer.target.model, type(error).__name__)
            answer.end("failed", self.explain(error, answer))
        except ValueError:
            answer.end("failed", "The server sent something that is not a chat completion stream.")
        else:
            if answer.finish_reason:
                answer.end("done")
            else:
                answer.end("failed", f"The stream broke off after {answer.tokens} tokens.")

    def explain(self, error: openai.APIError, answer: Answer | None = None) -> str:
        """One sentence for the reader of the page."""
        if answer is not None and answer.tokens and not isinstance(error, openai.APIStatusError):
            detail = "" if isinstance(error, openai.APIConnectionError) else f" {error.message}"
            return f"The stream broke off after {answer.tokens} tokens.{detail}"
        if isinstance(error, openai.APITimeoutError):
            return f"The server at {self.settings.api_url} did not answer in time."
        if isinstance(error, openai.APIConnectionError):
            return f"No server answers at {self.settings.api_url}."
        if isinstance(error, openai.APIStatusError):
            if error.status_code == 503:
                return "The server is not ready: it is still loading, or full. Try again in a moment."
            return f"The server refused with HTTP {error.status_code}: {_message(error)}"
        return f"The server reported an error: {error.message}"

    async def _get(self, path: str, *, missing_is_fine: bool = False) -> Any:
        try:
            return await self._openai.get(path, cast_to=object, options={"timeout": CONNECT_TIMEOUT_S})
        except openai.NotFoundError:
            if missing_is_fine:
                return None
            raise


def _take(answer: Answer, chunk: Any, at: float) -> None:
    error = getattr(chunk, "error", None)
    if error or not getattr(chunk, "model", None):
        raise ValueError("not a chunk of a chat completion")
    answer.check(chunk.model, chunk.system_fingerprint)
    for choice in chunk.choices:
        if choice.delta.content:
            answer.add(choice.delta.content, at)
        answer.finish_reason = choice.finish_reason or answer.finish_reason
    if chunk.usage is not None:
        answer.count(chunk.usage)


def _message(error: openai.APIStatusError) -> str:
    body = error.body
    message = body.get("message") if isinstance(body, dict) else None
    return str(message or error.message)[:500]
