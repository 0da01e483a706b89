"""Lets a model continue requests, so that whole sequences of its own are there to rehearse."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from training.evaluation.generation import generate, padding
from training.recipe import Rehearsal
from training.rehearsal.requests import frame, requests

_AT_ONCE = 128


@dataclass(frozen=True)
class Sampled:
    """A request and what the model wrote behind it.

    Attributes:
        tokens: Token ids of both, the end included if there was one.
        written: How many of them, at the end, the model wrote.
        ended: Whether it ended by itself; in a chat, with an answer: a request alone is not one to rehearse.
    """

    tokens: list[int]
    written: int
    ended: bool


@torch.no_grad()
def sample(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: Rehearsal, seed: int) -> list[Sampled]:
    """Return continued requests, in the order in which they were written, until there are enough for the pool.

    In a chat, what has no answer or no end is of no use: then more are tried, up to twice as many as are wanted. It is
    returned too, for the caller to count.
    """
    was_training = model.training
    model.eval()
    stream = requests(tokenizer, settings, seed)
    found: list[Sampled] = []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for _ in range(-(-settings.sequences // _AT_ONCE) * 2):
            found += _continued(model, tokenizer, settings, stream)
            complete = [sequence for sequence in found if sequence.ended]
            usable = found if tokenizer.chat_template is None else complete
            if len(usable) >= settings.sequences:
                break
    model.train(was_training)
    return found


def _continued(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: Rehearsal, stream: Iterator[list[int]]
) -> list[Sampled]:
    _, after = frame(tokenizer)
    end = tokenizer.eos_token_id
    prompts = list(islice(stream, _AT_ONCE))
    whole = _written(model, tokenizer, settings, prompts)
    if after[:1] == [end]:
        # The template closes a request with what also ends an answer: the model stopped there, its answer is to come.
        asked = {
            i: [*tokens[:-1], *after]
            for i, (prompt, tokens) in enumerate(zip(prompts, whole, strict=True))
            if tokens[-1] == end and len(tokens) > len(prompt) + 1 and not _holds(tokens, after)
        }
        if asked:
            answers = _written(model, tokenizer, settings, list(asked.values()))
            for i, answered in zip(asked, answers, strict=True):
                whole[i] = answered
    return [
        Sampled(tokens, len(tokens) - len(prompt), tokens[-1] == end and _holds(tokens, after))
        for prompt, tokens in zip(prompts, whole, strict=True)
    ]


def _written(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: Rehearsal, prompts: list[list[int]]
) -> list[list[int]]:
    """Each prompt with what the model writes behind it, up to the first end."""
    width = max(map(len, prompts))
    pad, end = padding(tokenizer), tokenizer.eos_token_id
    out = generate(
        model,
        tokenizer,
        torch.tensor([[pad] * (width - len(ids)) + ids for ids in prompts]),
        torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts]),
        do_sample=True,
        temperature=settings.temperature,
        top_k=0,
        max_new_tokens=settings.max_tokens,
    )
    found = []
    for prompt, written in zip(prompts, out[:, width:].tolist(), strict=True):
        ended = end in written
        found.append([*prompt, *(written[: written.index(end) + 1] if ended else written)])
    return found


def _holds(tokens: list[int], part: list[int]) -> bool:
    """Whether one sequence stands in another."""
    return any(tokens[i : i + len(part)] == part for i in range(len(tokens) - len(part) + 1))
