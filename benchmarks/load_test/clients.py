"""The clients of the load test: each asks, again and again, at random, well or badly, and checks what it gets.

They stay light, for they share the cores with the server: a stream's bytes are collected, and read at its end.
"""

import asyncio
import random
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus

import httpx
from load_test.answers import Heard, Verdict, judge_answer, judge_refusal
from load_test.questions import COMPLETIONS, LARGE, draw_malformed, draw_question
from load_test.reference import Reference

DEADLINE_S = 120
"""Time that a request may take, with the pauses of its client; one that takes longer hangs."""

_CHUNK_S = 0.02  # between two reads of a slow client
_PAUSE_S = 3.0  # of a slow client that stops reading
_PAUSES = 0.02  # share of its reads after which it does
_RECEIVE_BUFFER = 4096  # bytes; small, so that the server notices a client that does not read


@dataclass(frozen=True)
class Outcome:
    """How one request ended.

    Args:
        kind: What the client did.
        seconds: How long it took.
        verdict: What came of it.
    """

    kind: str
    seconds: float
    verdict: Verdict


@dataclass
class Target:
    """The server under load, what is known of its answers, and what came of the requests so far."""

    root: str
    name: str
    digest: str
    reference: Reference
    outcomes: list[Outcome] = field(default_factory=list)
    open_requests: int = 0


class Client:
    """One client, with one request at a time, each on a connection of its own.

    Args:
        target: What is asked.
        seed: Of its random choices.
        slow: It reads its streams slowly, and now and then not at all for a while.
    """

    def __init__(self, target: Target, seed: int, slow: bool) -> None:
        self._target = target
        self._random = random.Random(seed)
        self._slow = slow
        small = [(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)]
        # A connection for each request: a client that is late would reuse one that the server has just closed as idle.
        limits = httpx.Limits(max_keepalive_connections=0)
        transport = httpx.AsyncHTTPTransport(verify=False, limits=limits, socket_options=small if slow else None)
        self._http = httpx.AsyncClient(base_url=target.root, transport=transport, timeout=None)
        self._kinds: dict[str, tuple[float, Callable[[], Awaitable[Verdict]]]] = {
            "slow answer" if slow else "answer": (0.70, self._ask),
            "abort": (0.18, self._abort),
            "malformed": (0.10, self._send_malformed),
            "oversize": (0.02, self._send_large),
        }

    async def run(self, until: float) -> None:
        """Ask until a time of the monotonic clock; a client that is turned away waits as it was told."""
        kinds, weights = list(self._kinds), [weight for weight, _ in self._kinds.values()]
        async with self._http:
            while (begun := time.monotonic()) < until:
                kind = self._random.choices(kinds, weights)[0]
                self._target.open_requests += 1
                verdict = await self._verdict(self._kinds[kind][1])
                self._target.open_requests -= 1
                self._target.outcomes.append(Outcome(kind, time.monotonic() - begun, verdict))
                if verdict.status == HTTPStatus.TOO_MANY_REQUESTS:
                    await asyncio.sleep(self._random.uniform(1, 1.2))  # Retry-After is 1, see `judge_refusal`

    async def _verdict(self, ask: Callable[[], Awaitable[Verdict]]) -> Verdict:
        try:
            async with asyncio.timeout(DEADLINE_S):
                return await ask()
        except TimeoutError:
            return Verdict(0, f"no end within {DEADLINE_S} s")
        except httpx.TransportError as error:
            return Verdict(0, f"connection: {error!r}")
        except (ValueError, KeyError) as error:
            return Verdict(0, f"cannot be read: {error!r}")

    async def _ask(self) -> Verdict:
        """Read an answer to its end."""
        return await self._stream(None)

    async def _abort(self) -> Verdict:
        """Leave after a random time; what came of a stream until then must be the beginning of the answer."""
        return await self._stream(self._random.uniform(0.02, 1.5))

    async def _stream(self, patience: float | None) -> Verdict:
        question, path, body = draw_question(self._random, self._target.name, self._slow)
        heard, is_whole = Heard(), True
        try:
            async with asyncio.timeout(patience), self._http.stream("POST", path, json=body) as response:
                heard.begin(response)
                async for chunk in response.aiter_raw():
                    heard.body += chunk
                    if self._slow:
                        await asyncio.sleep(_PAUSE_S if self._random.random() < _PAUSES else _CHUNK_S)
        except TimeoutError:
            is_whole = False
            if heard.status != HTTPStatus.OK or not body["stream"]:
                return Verdict(heard.status)
        mark = (body["model"], f"cllm-{self._target.digest}-s{question.scale:g}")
        reference = self._target.reference
        return judge_answer(heard, reference, question, mark, is_stream=body["stream"], is_whole=is_whole)

    async def _send_malformed(self) -> Verdict:
        """Send what no server should take; a busy one may turn it away unread."""
        content, status = draw_malformed(self._random, self._target.name)
        return await self._send(content, {status, HTTPStatus.TOO_MANY_REQUESTS})

    async def _send_large(self) -> Verdict:
        return await self._send(LARGE, {HTTPStatus.REQUEST_ENTITY_TOO_LARGE})

    async def _send(self, content: bytes, allowed: set[HTTPStatus]) -> Verdict:
        answer = await self._http.post(COMPLETIONS, content=content, headers={"Content-Type": "application/json"})
        heard = Heard(body=bytearray(answer.content))
        heard.begin(answer)
        return judge_refusal(heard, allowed)
