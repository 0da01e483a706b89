"""Whether what a client of the load test received is right: status, shape, provenance and every token."""

import json
from collections.abc import Collection
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import httpx
from load_test.reference import Answer, Question, Reference

_RETRY_AFTER = "1"
_DONE = b"[DONE]"


@dataclass
class Heard:
    """What was received of one answer.

    Args:
        status: HTTP status; 0 while there is none.
        retry_after: The header.
        body: What came of the body.
    """

    status: int = 0
    retry_after: str | None = None
    body: bytearray = field(default_factory=bytearray)

    def begin(self, response: httpx.Response) -> None:
        """Note an answer's head."""
        self.status, self.retry_after = response.status_code, response.headers.get("retry-after")


@dataclass(frozen=True)
class Verdict:
    """What is to be said of one answer.

    Args:
        status: HTTP status; 0 if the client left before there was one.
        fault: What is wrong, if something is.
        compared: Tokens of the answer that were compared.
        cut: Tokens of the answer that were not, because they lie after a near tie.
    """

    status: int
    fault: str | None = None
    compared: int = 0
    cut: int = 0


def judge_refusal(heard: Heard, allowed: Collection[HTTPStatus]) -> Verdict:
    """Check a refusal: its status, OpenAI's error shape, and that a busy server says when to come back."""
    fault = None
    if heard.status not in allowed:
        fault = f"status {heard.status}, not one of {sorted(allowed)}: {bytes(heard.body[:300])!r}"
    else:
        error = json.loads(heard.body)["error"]
        if error["code"] != heard.status or not error["message"]:
            fault = f"not OpenAI's error shape: {error}"
        elif heard.status == HTTPStatus.TOO_MANY_REQUESTS and heard.retry_after != _RETRY_AFTER:
            fault = f"429 with Retry-After {heard.retry_after}"
    return Verdict(heard.status, fault)


def judge_answer(
    heard: Heard, reference: Reference, question: Question, mark: tuple[str, str], *, is_stream: bool, is_whole: bool
) -> Verdict:
    """Check an answer, or the beginning of a stream that the client left.

    Args:
        heard: What was received.
        reference: The expected answers.
        question: What was asked.
        mark: Model id and fingerprint that each part must carry.
        is_stream: It is a stream, not one body.
        is_whole: The client waited for its end.
    """
    if heard.status != HTTPStatus.OK:
        return judge_refusal(heard, {HTTPStatus.TOO_MANY_REQUESTS})
    body = bytes(heard.body)
    if is_stream:
        body = body[: body.rfind(b"\n\n") + 2]  # without a chunk that had not arrived in full
        events = [event.removeprefix(b"data: ") for event in body.split(b"\n\n") if event]
    else:
        events = [body, _DONE]
    parts = [json.loads(event) for event in events if event != _DONE]
    if errors := [part for part in parts if "error" in part]:
        return Verdict(heard.status, f"an error in the answer: {errors[0]}")
    if marks := {(part["model"], part["system_fingerprint"]) for part in parts} - {mark}:
        return Verdict(heard.status, f"made by {marks}, not {mark}")
    answer = read_answer(parts)
    if is_whole and (answer.finish is None or events[-1] != _DONE):
        return Verdict(heard.status, f"the answer broke off: {answer}")
    comparison = reference.compare(question, answer)
    return Verdict(heard.status, comparison.fault, comparison.compared, comparison.cut)


def read_answer(parts: list[dict[str, Any]]) -> Answer:
    """Put an answer together from the chunks of a stream, or from one body."""
    tokens: list[int] = []
    text, finish = "", None
    for part in parts:
        for choice in part["choices"]:
            tokens += choice.get("token_ids") or []
            message = choice.get("delta") or choice.get("message") or {}
            text += choice.get("text") or message.get("content") or ""
            finish = choice["finish_reason"] or finish
    return Answer(tokens, text, finish)
