"""Suites: what a model is asked, read and checked before any model is loaded.

A suite is `lm-eval:TASK`, a task of the lm-evaluation-harness, or a JSONL file in one of the formats of training data
(`training.data.formats`). Of a conversation, exact match of the last answer is measured; of prompt and completion, that
of what is written after the prompt; of texts the perplexity, by `domain` where lines have such a field.
"""

import hashlib
from collections.abc import Mapping, Sequence
from itertools import islice
from math import exp, log
from pathlib import Path
from typing import Protocol

from training.data.formats import DataError, Example, detect, parse
from training.data.sources import json_lines
from training.evaluation.generation import is_right
from training.evaluation.harness import Harness
from training.evaluation.target import Likelihood, Question, Target
from training.intervals import Interval, bootstrap_ratio, wilson
from training.measure import Measure, SuiteFacts

HARNESS = "lm-eval:"


class Suite(Protocol):
    """Something that a model can be measured by."""

    @property
    def facts(self) -> SuiteFacts:
        """What the suite is."""

    def measure(self, target: Target, scale: float) -> list[Measure]:
        """Measure a model at one scale."""


class ExactMatch:
    """The share of questions whose greedy answer is right."""

    def __init__(self, facts: SuiteFacts, questions: Sequence[Question]) -> None:
        self.facts = facts
        self.questions = questions

    def measure(self, target: Target, scale: float) -> list[Measure]:
        """The share, with Wilson's interval."""
        given = target.answers(self.questions, scale)
        right = sum(is_right(answer, q.answer) for answer, q in zip(given, self.questions, strict=True))
        low, high = wilson(right, len(given))
        return [
            Measure(
                suite=self.facts.name,
                metric="exact_match",
                scale=scale,
                value=right / len(given),
                low=low,
                high=high,
                interval="wilson",
                count=len(given),
            )
        ]


class Perplexity:
    """Bits per byte and token perplexity of texts, by domain; intervals are bootstrapped over texts."""

    def __init__(self, facts: SuiteFacts, domains: Mapping[str, Sequence[str]]) -> None:
        self.facts = facts
        self.domains = domains

    def measure(self, target: Target, scale: float) -> list[Measure]:
        """Both figures for each domain."""
        texts = [text for domain in self.domains.values() for text in domain]
        found = iter(target.likelihoods(texts, scale))
        return [
            measure
            for domain, own in self.domains.items()
            for measure in self._measures(domain, [next(found) for _ in own], scale)
        ]

    def _measures(self, domain: str, found: Sequence[Likelihood], scale: float) -> list[Measure]:
        nats = [entry.nats for entry in found]
        per_byte, per_token = [entry.bytes for entry in found], [entry.tokens for entry in found]
        bits = [value / log(2) for value in nats]
        over_bytes, over_tokens = bootstrap_ratio(bits, per_byte), bootstrap_ratio(nats, per_token)
        perplexity = None if over_tokens is None else Interval(exp(over_tokens.low), exp(over_tokens.high))
        return [
            Measure(
                suite=self.facts.name,
                part=domain,
                metric=metric,
                scale=scale,
                value=value,
                low=None if interval is None else interval.low,
                high=None if interval is None else interval.high,
                interval=None if interval is None else "bootstrap",
                count=len(found),
            )
            for metric, value, interval in (
                ("bits_per_byte", sum(bits) / sum(per_byte), over_bytes),
                ("token_perplexity", exp(sum(nats) / sum(per_token)), perplexity),
            )
        ]


def read_suite(source: str, limit: int | None = None) -> Suite:
    """Read a suite: a JSONL file, or `lm-eval:TASK`.

    Args:
        source: The file or task.
        limit: Use the first questions or texts only (a harness: of each task).

    Raises:
        DataError: The file cannot be used; names the line and field. Or the harness is not installed, or knows no such
            task.
    """
    if source.startswith(HARNESS):
        return Harness(source.removeprefix(HARNESS), limit)
    path = Path(source)
    records = list(islice(json_lines(path), limit))
    if not records:
        raise DataError(f"{path}: no record in it")
    where, first = records[0]
    name = detect(first, where)
    examples = [parse(record, name, where) for where, record in records]
    facts = SuiteFacts(
        name=path.stem,
        kind="perplexity" if name == "text" else "exact match",
        source=path.name,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        count=len(records),
    )
    if name != "text":
        return ExactMatch(facts, [_question(example) for example in examples])
    domains: dict[str, list[str]] = {}
    for example, (where, record) in zip(examples, records, strict=True):
        domain = record.get("domain", "")
        if not isinstance(domain, str):
            raise DataError(f"{where}: domain = {domain!r}: expected a name")
        if len(example["completion"]) < 2:
            raise DataError(f"{where}: text: a single character has nothing before it that could predict it")
        domains.setdefault(domain, []).append(example["completion"])
    return Perplexity(facts, domains)


def _question(example: Example) -> Question:
    """The last message, or the completion, is what is to be answered."""
    if not example["messages"]:
        return Question(example["prompt"], example["completion"])
    *asked, answer = example["messages"]
    if answer["role"] != "assistant" or not asked:
        raise DataError(f"{example['where']}: the conversation does not end with an answer of the assistant")
    return Question(tuple(asked), answer["content"])


def evaluate(target: Target, suites: Sequence[Suite], scales: Sequence[float]) -> list[Measure]:
    """Measure a model by every suite at every scale."""
    return [measure for suite in suites for scale in scales for measure in suite.measure(target, scale)]
