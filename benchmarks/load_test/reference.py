"""What the load test's requests must be answered: Hugging Face's greedy tokens, computed before the load starts."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import cllm_model  # noqa: F401 - registers the classes

SCALES = (0.0, 0.25, 0.5, 1.0, 1.5)
LIMIT = 64
"""Tokens of the longest answer."""
MARGIN = 1e-3
"""Where the two best logits are closer than this, rounding may choose: nothing is compared from there on."""

_SHARED = "this is what i would like you to do now, as well as you can and without delay: "  # two KV blocks
_TASKS = (
    "translate into Tavi: the old cat sees the red bird",
    "how do you say this in Tavi: the happy king loves the quiet queen",
    "the small dog and the red fish - in Tavi please",
    "say in tavi: the old cat sees a house",
    "reverse the old cat sees the red bird",
    "tell me of the sea and the wind",
    "the quick brown fox jumps over the lazy dog",
    "count from 12 to 37",
)  # most are unlike what the model was trained on, where its answers differ most between scales
PROMPTS = tuple(start + task for start in ("", _SHARED) for task in _TASKS)


@dataclass(frozen=True)
class Question:
    """What a request asks for.

    Args:
        chat: As a chat, not as a completion.
        prompt: One of `PROMPTS`.
        scale: One of `SCALES`.
        limit: Most tokens of the answer, at most `LIMIT`.
        ignores_end: The answer goes on behind its end.
    """

    chat: bool
    prompt: str
    scale: float
    limit: int
    ignores_end: bool


@dataclass(frozen=True)
class Answer:
    """What a server answered, or the part of it that was read."""

    tokens: list[int]
    text: str
    finish: str | None


@dataclass(frozen=True)
class Comparison:
    """An answer beside the expected one.

    Args:
        fault: What is wrong with the answer; None if nothing is.
        compared: Number of tokens that were compared.
        cut: Number of tokens that were not, because they lie after a near tie.
    """

    fault: str | None
    compared: int
    cut: int


@dataclass(frozen=True)
class Expected:
    """The greedy answer to a prompt at a control scale, continued beyond its end.

    Args:
        tokens: `LIMIT` tokens.
        certain: Number of tokens before the first whose margin is below `MARGIN`.
    """

    tokens: list[int]
    certain: int


class Reference:
    """The expected answers to all prompts, as chats and as completions, at all scales.

    Args:
        model: Checkpoint directory.
    """

    def __init__(self, model: Path) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(model)
        self._end = self._tokenizer.eos_token_id
        self._expected: dict[tuple[bool, str, float], Expected] = {}
        hf = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
        hf.generation_config.eos_token_id = None  # where an answer ends is decided in `fault`
        for chat in (True, False):
            for prompt in PROMPTS:
                for scale, expected in zip(SCALES, self._generate(hf, chat, prompt), strict=True):
                    self._expected[chat, prompt, scale] = expected

    @property
    def distinct(self) -> float:
        """Number of different answers that a prompt has over the scales, on average: how well they show their scale."""
        answers: dict[tuple[bool, str], set[tuple[int, ...]]] = {}
        for (chat, prompt, _), expected in self._expected.items():
            answers.setdefault((chat, prompt), set()).add(tuple(expected.tokens))
        return sum(map(len, answers.values())) / len(answers)

    def compare(self, question: Question, answer: Answer) -> Comparison:
        """Compare an answer with the expected one; one that has no end is compared as far as it goes."""
        expected = self._expected[question.chat, question.prompt, question.scale]
        tokens = expected.tokens[: question.limit]
        stops = not question.ignores_end and self._end in tokens
        if stops:
            tokens = tokens[: tokens.index(self._end) + 1]
        is_whole = answer.finish is not None
        certain = min(expected.certain, len(tokens))
        wanted = tokens[:certain] if is_whole else tokens[:certain][: len(answer.tokens)]
        text = self._tokenizer.decode(answer.tokens, skip_special_tokens=True)
        is_right = answer.tokens[:certain] == wanted and text == answer.text
        if is_whole and certain == len(tokens):
            is_right &= len(answer.tokens) == certain and answer.finish == ("stop" if stops else "length")
        compared = min(certain, len(answer.tokens))
        fault = None if is_right else f"{question}: expected {tokens}, got {answer}"
        return Comparison(fault, compared, len(answer.tokens) - compared)

    @torch.inference_mode()
    def _generate(self, hf: Any, chat: bool, prompt: str) -> list[Expected]:
        if chat:
            message = [{"role": "user", "content": prompt}]
            ids = self._tokenizer.apply_chat_template(message, add_generation_prompt=True, return_dict=False)
        else:
            ids = self._tokenizer(prompt).input_ids
        generated = hf.generate(
            torch.tensor([ids] * len(SCALES)),
            control_scale=torch.tensor(SCALES),
            max_new_tokens=LIMIT,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
        best = torch.stack(generated.logits, dim=1).topk(2).values  # (scales, LIMIT, 2)
        close = best[..., 0] - best[..., 1] < MARGIN
        return [
            Expected(row.tolist(), int(near.nonzero()[0]) if near.any() else LIMIT)
            for row, near in zip(generated.sequences[:, len(ids) :], close, strict=True)
        ]
