"""A client that keeps a number of streams open on an OpenAI server and times each token."""

import asyncio
import json
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import httpx
from common.models import VOCABULARY, word

_PATIENCE_S = 600


@dataclass(frozen=True)
class Target:
    """A model of a server."""

    root: str
    model: str


@dataclass(frozen=True)
class Timing:
    """Times of the requests of one run.

    Args:
        seconds: From the first request to the last token.
        tokens: Number of tokens in the answers.
        first: For each request, seconds to its first token.
        next: For each further token, seconds since the one before; tokens that came together share the time.
    """

    seconds: float
    tokens: int
    first: list[float]
    next: list[float]


def prompts(seed: int, count: int, length: int) -> list[str]:
    """Return random prompts of so many tokens: none is the beginning of another, so no server's cache helps."""
    draw = random.Random(seed)
    return [" ".join(word(draw.randrange(VOCABULARY)) for _ in range(length)) for _ in range(count)]


async def run(targets: Sequence[Target], asked: Sequence[str], streams: int, tokens: int) -> Timing:
    """Ask all prompts, as many at a time as there are streams, of the targets in turn.

    Raises:
        ValueError: An answer has another number of tokens than was asked for.
    """
    begun = time.perf_counter()
    async with httpx.AsyncClient(verify=False, timeout=_PATIENCE_S) as http:
        queues = [iter(asked[index::streams]) for index in range(streams)]
        work = [_ask(http, targets[index % len(targets)], queue, tokens) for index, queue in enumerate(queues)]
        answers = [answer for stream in await asyncio.gather(*work) for answer in stream]
    return Timing(
        seconds=time.perf_counter() - begun,
        tokens=tokens * len(answers),
        first=[times[0] for times in answers],
        next=[seconds for times in answers for seconds in times[1:]],
    )


async def _ask(http: httpx.AsyncClient, target: Target, asked: Iterator[str], tokens: int) -> list[list[float]]:
    """Return, for each prompt, the seconds to its first token and from each token to the next."""
    answers = []
    for prompt in asked:
        body = {"model": target.model, "prompt": prompt, "max_tokens": tokens, "temperature": 0, "stream": True}
        times: list[float] = []
        last = time.perf_counter()
        async with http.stream("POST", f"{target.root}/v1/completions", json=body) as response:
            async for line in response.aiter_lines():
                words = _words(line)
                if words:
                    now = time.perf_counter()
                    times += [(now - last) / words] * words
                    last = now
        if len(times) != tokens:
            raise ValueError(
                f"{target}: {len(times)} tokens instead of {tokens}, status {response.status_code}: {line}"
            )
        answers.append(times)
    return answers


def _words(line: str) -> int:
    """Return the number of tokens in a line of a stream."""
    if not line.startswith('data: {"'):
        return 0
    chunk = json.loads(line.removeprefix("data: "))
    return sum(len(choice["text"].split()) for choice in chunk.get("choices", []))
