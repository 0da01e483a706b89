"""What the clients of the load test ask, well or badly; drawn at random from what `reference` knows the answers to."""

import json
import random
from http import HTTPStatus
from typing import Any

from load_test.reference import LIMIT, PROMPTS, SCALES, Question

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
LARGE = b'{"prompt": "' + b"a" * 1_500_000 + b'"}'
_TOP_LOGPROBS = 20  # makes the chunks of slow readers large, so that the server notices that they do not read


def draw_question(draw: random.Random, name: str, slow: bool) -> tuple[Question, str, dict[str, Any]]:
    """Return a question with the path and the body that ask it; the model id or a field says its scale.

    Args:
        draw: Source of chance.
        name: Name of the served model.
        slow: Ask for a stream of large chunks.
    """
    question = Question(
        chat=draw.random() < 0.5,
        prompt=draw.choice(PROMPTS),
        scale=draw.choice(SCALES),
        limit=draw.choice((LIMIT // 8, LIMIT // 2, LIMIT)),
        ignores_end=draw.random() < 0.8,
    )
    ids = [f"{name}@{question.scale:g}", *{0.0: [f"{name}:base"], 1.0: [name]}.get(question.scale, [])]
    body: dict[str, Any] = {
        **({"model": draw.choice(ids)} if draw.random() < 0.5 else {"model": name, "control_scale": question.scale}),
        "max_tokens": question.limit,
        "temperature": 0,
        "ignore_eos": question.ignores_end,
        "stream": slow or draw.random() < 0.7,
        "return_token_ids": True,
    }
    if question.chat:
        body["messages"] = [{"role": "user", "content": question.prompt}]
        return question, CHAT, body | ({"logprobs": True, "top_logprobs": _TOP_LOGPROBS} if slow else {})
    body["prompt"] = question.prompt
    return question, COMPLETIONS, body | ({"logprobs": _TOP_LOGPROBS} if slow else {})


def draw_malformed(draw: random.Random, name: str) -> tuple[bytes, HTTPStatus]:
    """Return the body of a completion that no server may take, and the status that says so."""
    asked = {"model": name, "prompt": "a", "max_tokens": 1}
    wrong = [
        {"control_scale": "0.5"},
        {"control_scale": 3},
        {"control_scale": float("nan")},
        {"model": f"{name}:base", "control_scale": 1},
        {"temperatur": 1},
        {"temperature": -1},
    ]
    bodies = [(json.dumps(asked | fields).encode(), HTTPStatus.BAD_REQUEST) for fields in wrong]
    bodies.append((json.dumps(asked | {"model": "nobody"}).encode(), HTTPStatus.NOT_FOUND))
    bodies.append((b'{"prompt": "a", ', HTTPStatus.BAD_REQUEST))
    bodies.append((b'{"prompt": "\xff\xfe", "max_tokens": 1}', HTTPStatus.BAD_REQUEST))
    return draw.choice(bodies)
