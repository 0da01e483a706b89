"""Evaluation of a model behind our server's OpenAI-compatible API, each scale as the model id NAME@scale."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx
from openai import OpenAI, OpenAIError

from cllm_model.scale import check_scale
from training.evaluation.target import Likelihood, Question, predicted_bytes, windows

API_KEY_VARIABLE = "CLLM_API_KEY"
_TIMEOUT_S = 600.0  # a queue may be long

T = TypeVar("T")
R = TypeVar("R")


class ServedModel:
    """A model on a running server.

    Args:
        url: Address of the server, with or without `/v1`.
        concurrency: Requests under way at once.
        max_new_tokens: Most tokens of an answer.
        window: Most tokens of a text that are looked at together; less if the server's limit is smaller.
        tokenizer: Directory with the model's tokenizer, which tasks of the lm-evaluation-harness need here.

    Raises:
        ValueError: Nothing that is a server of ours answers there; nothing was asked of the model yet.
    """

    def __init__(
        self, url: str, concurrency: int, max_new_tokens: int, window: int, tokenizer: str | None = None
    ) -> None:
        self.root = url.rstrip("/").removesuffix("/v1")
        self.concurrency = concurrency
        self.max_new_tokens = max_new_tokens
        self.tokenizer = tokenizer
        self._key = os.environ.get(API_KEY_VARIABLE) or "none"
        self._client = OpenAI(base_url=f"{self.root}/v1", api_key=self._key, timeout=_TIMEOUT_S)
        self._http = httpx.Client(
            base_url=self.root, headers={"Authorization": f"Bearer {self._key}"}, timeout=_TIMEOUT_S
        )
        try:
            control, models = self._get("/v1/control"), self._get("/v1/models")["data"]
            self.checkpoint: str = control["checkpoint"]
            self.max_scale: float = control["max"]
            self.name: str = models[0]["id"]
            self.context: int = models[0]["max_model_len"]
        except (httpx.HTTPError, KeyError, IndexError, TypeError, ValueError) as error:
            raise ValueError(f"{url}: no answer of a `cllm serve` there: {error!r}") from error
        self.window = min(window, self.context - 1)  # vLLM keeps room for one new token

    def _get(self, path: str) -> Any:
        return self._http.get(path).raise_for_status().json()

    def check(self, scales: Sequence[float]) -> list[float]:
        """Return the scales as the server knows them.

        Raises:
            ValueError: One is out of its range.
        """
        return [check_scale(scale, "scales", self.max_scale) for scale in scales]

    def answers(self, questions: Sequence[Question], scale: float) -> list[str]:
        """Greedy answers, in order."""
        return self._all(lambda question: self._answer(question, scale), questions)

    def _answer(self, question: Question, scale: float) -> str:
        asked: dict[str, Any] = {"model": self._id(scale), "temperature": 0, "max_tokens": self.max_new_tokens}
        if isinstance(question.prompt, str):
            text = self._client.completions.create(prompt=question.prompt, **asked)
            self._prove(text.system_fingerprint, scale)
            return text.choices[0].text
        messages: Any = list(question.prompt)
        chat = self._client.chat.completions.create(messages=messages, **asked)
        self._prove(chat.system_fingerprint, scale)
        return chat.choices[0].message.content or ""

    def likelihoods(self, texts: Sequence[str], scale: float) -> list[Likelihood]:
        """How likely each text is, in order."""
        return self._all(lambda text: self._likelihood(text, scale), texts)

    def _likelihood(self, text: str, scale: float) -> Likelihood:
        found = self._http.post("/tokenize", json={"model": self.name, "prompt": text})
        tokens = found.raise_for_status().json()["tokens"]
        first = self._http.post("/detokenize", json={"model": self.name, "tokens": tokens[:1]})
        nats = 0.0
        for window in windows(tokens, self.window):
            answer = self._client.completions.create(
                model=self._id(scale), prompt=window, temperature=0, max_tokens=0, echo=True, logprobs=0
            )
            self._prove(answer.system_fingerprint, scale)
            logprobs = answer.choices[0].logprobs
            assert logprobs is not None and logprobs.token_logprobs is not None
            nats -= sum(logprobs.token_logprobs[1:])  # the first has none
        return Likelihood(nats, len(tokens) - 1, predicted_bytes(text, first.raise_for_status().json()["prompt"]))

    def _id(self, scale: float) -> str:
        return f"{self.name}@{scale:g}"

    def _prove(self, fingerprint: str | None, scale: float) -> None:
        """The server says of each answer what made it; figures of another checkpoint or scale are worth nothing."""
        expected = f"cllm-{self.checkpoint}-s{scale:g}"
        if fingerprint != expected:
            raise RuntimeError(f"{self.root}: an answer is from {fingerprint!r} where {expected!r} was asked")

    def _all(self, ask: Callable[[T], R], questions: Sequence[T]) -> list[R]:
        with ThreadPoolExecutor(self.concurrency) as pool:
            try:
                return list(pool.map(ask, questions))
            except (OpenAIError, httpx.HTTPError) as error:
                pool.shutdown(cancel_futures=True)
                raise RuntimeError(f"{self.root}: {error}") from error

    @contextmanager
    def harness(self, scale: float) -> Iterator[Any]:
        """Within it, the model at `scale` as a model of the lm-evaluation-harness."""
        from lm_eval.models.openai_completions import LocalCompletionsAPI

        yield LocalCompletionsAPI(
            model=self._id(scale),
            base_url=f"{self.root}/v1/completions",
            tokenizer=self.tokenizer,
            tokenizer_backend="huggingface",
            num_concurrent=self.concurrency,
            max_length=self.context,
            header={"Authorization": f"Bearer {self._key}"},
        )
