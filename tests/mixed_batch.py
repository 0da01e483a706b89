"""Sixteen requests at five control scales that join, are preempted, stream and leave: the same on any device.

Each of four prompts is asked at every scale, the last one at one only; two of them start with one prefix, two with
another. The engine is driven step by step, as a server drives it: requests join while others are in the middle of their
answers, every token is taken as it comes, and some clients leave early, one of them before its first token.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from vllm import LLM, SamplingParams
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.llm_engine import LLMEngine

from cllm_model.vllm.request import cache_salt, with_scale
from tests.greedy import assert_greedy, decided
from tests.vllm_engines import BLOCK, counter, generate, tokens_of

SCALES = (0.0, 0.25, 0.5, 1.0, 1.5)
TOKENS = 48
TIGHT: dict[str, Any] = {
    "max_num_seqs": 16,
    "max_num_batched_tokens": 48,
    "enable_chunked_prefill": True,
    "num_gpu_blocks_override": 33,  # the requests would need about twice as many
}
"""Engine options under which prompts are computed in chunks, and running requests preempted."""


@dataclass(frozen=True)
class Request:
    """One of the sixteen.

    Args:
        joins: Step of the engine before which it is added.
        leaves: Tokens after which its client leaves; None if it stays to the end.
    """

    prompt: list[int]
    scale: float
    joins: int
    leaves: int | None


LEAVES = {2: 20, 6: 0, 9: 5, 13: 33}
"""Whose client leaves, and after how many tokens."""


def sixteen(vocabulary: int) -> list[Request]:
    """The requests, for a model with so many tokens."""
    generator = torch.Generator().manual_seed(7)

    def tokens(length: int) -> list[int]:
        return torch.randint(3, vocabulary, (length,), generator=generator).tolist()

    prefixes = tokens(2 * BLOCK), tokens(2 * BLOCK)
    prompts = [prefixes[i % 2] + tokens(4 + 7 * i) for i in range(4)]
    return [
        Request(prompt, scale, joins=2 * i, leaves=LEAVES.get(i))
        for i, (prompt, scale) in enumerate(list(itertools.product(prompts, SCALES))[:16])
    ]


class Pass(NamedTuple):
    """What one pass of the requests through an engine gave, and what the engine counted meanwhile."""

    answers: list[list[int]]
    most_scales: int  # in one step
    preemptions: int
    hits: int


def stream(llm: LLM, requests: Sequence[Request], salted: bool = True) -> Pass:
    """Run all requests, each from its step on, and take their tokens one by one."""
    engine = llm.llm_engine
    before = _counted(llm)
    answers: list[list[int]] = [[] for _ in requests]
    live: set[int] = set()
    most_scales = 0
    for step in itertools.count():
        for index, request in enumerate(requests):
            if request.joins == step:
                add(engine, str(index), request, salted)
                live.add(index)
        outputs = engine.step()
        for output in outputs:
            index = int(output.request_id)
            assert index in live  # nothing comes for a client that has left
            (token,) = output.outputs[0].token_ids
            answers[index].append(token)
            if output.finished:
                live.remove(index)
        most_scales = max(most_scales, len({requests[int(output.request_id)].scale for output in outputs}))
        gone = {index for index in live if len(answers[index]) == requests[index].leaves}
        engine.abort_request([str(index) for index in gone])
        live -= gone
        if not live and step > max(request.joins for request in requests):
            break
    preemptions, hits = (now - then for now, then in zip(_counted(llm), before, strict=True))
    return Pass(answers, most_scales, preemptions, hits)


def _counted(llm: LLM) -> tuple[int, int]:
    return counter(llm, "num_preemptions"), counter(llm, "prefix_cache_hits")


def add(engine: LLMEngine, name: str, request: Request, salted: bool = True) -> None:
    """Add a request whose tokens come one by one."""
    salt = {"cache_salt": cache_salt(request.scale)} if salted else {}
    prompt: Any = {"prompt_token_ids": request.prompt, **salt}
    params = SamplingParams(
        temperature=0.0, max_tokens=TOKENS, ignore_eos=True, detokenize=False,
        output_kind=RequestOutputKind.DELTA, extra_args=with_scale(None, request.scale),
    )  # fmt: skip
    engine.add_request(name, prompt, params)


def twice(llm: LLM, requests: Sequence[Request]) -> tuple[Pass, Pass]:
    """Stream the requests with an empty cache, and again with what that left in it; all blocks are free in the end."""
    assert llm.reset_prefix_cache()
    passes = stream(llm, requests), stream(llm, requests)
    assert llm.reset_prefix_cache()  # which the engine refuses as long as a request holds a block
    assert passes[1].hits > passes[0].hits > 0  # in the first, among its own requests
    return passes


def alone(llm: LLM, requests: Sequence[Request]) -> list[list[int]]:
    """Answers of requests that have the engine to themselves, each with an empty cache."""
    answers = []
    for request in requests:
        assert llm.reset_prefix_cache()
        answers += tokens_of(generate(llm, [request.prompt], [request.scale], tokens=TOKENS))
    return answers


def check(found: Pass, hf: Any, requests: Sequence[Request], lone: Sequence[list[int]]) -> None:
    """A pass went through all that it should; its answers are Hugging Face's, and those of the requests alone.

    As everywhere, tokens are compared up to the first near tie.
    """
    assert found.preemptions > 0
    assert found.most_scales == len(SCALES)
    for request, answer in zip(requests, found.answers, strict=True):
        assert len(answer) == (TOKENS if request.leaves is None else request.leaves)
    prompts, scales = [request.prompt for request in requests], [request.scale for request in requests]
    assert min(map(len, prompts)) > TIGHT["max_num_batched_tokens"]  # computed in chunks
    for answer, one, length in zip(found.answers, lone, assert_greedy(hf, prompts, found.answers, scales), strict=True):
        assert answer[:length] == one[:length]


def wrong(hf: Any, requests: Sequence[Request], answers: Sequence[list[int]]) -> list[int]:
    """Which requests got an answer that is not Hugging Face's."""
    return [
        index
        for index, (request, answer) in enumerate(zip(requests, answers, strict=True))
        if (best := decided(hf, request.prompt, answer, request.scale)) != answer[: len(best)]
    ]
