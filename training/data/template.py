"""Conversations as tokens, and which of them the assistant wrote.

That is found in one of three ways, so that every token is learned behind exactly what stands before it in use:

1. `{% generation %}` marks in the template say it.
2. The template renders each part of the conversation as a prefix of the whole: the assistant's tokens are those that
   its message adds to the request (rendered with the generation prompt). One row holds all turns.
3. It does not (Qwen3 leaves out the reasoning of earlier turns, for one), but it does for the last message: each of the
   assistant's messages gets a row of its own, behind the conversation up to it as it is rendered then.

A conversation whose last message cannot be told from the request either is refused.
"""

import itertools
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from training.data.formats import DataError, Message

_MARK = re.compile(r"\{%-?\s*generation\s*-?%\}")
# Some templates (Llama 3.2) write today's date where they are given none: the same data would differ from day to day.
_DATE = "26 Jul 2024"


class Rendered(NamedTuple):
    """A conversation as token ids; the tokens `[start, stop)` of each span are the assistant's."""

    ids: list[int]
    spans: list[tuple[int, int]]


def render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], first: int, where: str) -> list[Rendered]:
    """Return a conversation with the spans of the assistant's messages from number `first` on, in one row or more.

    Raises:
        DataError: The template refuses the conversation, or the assistant's tokens cannot be told.
    """
    answers = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    if answers[0] == 0:
        raise DataError(f"{where}: the first message is the assistant's, an answer to nothing")
    learned = [i for i in answers if i >= first]
    with _refusals(where):
        if _MARK.search(tokenizer.get_chat_template()):
            return [_marked(tokenizer, messages, answers, first, where)]
        if whole := _by_prefixes(tokenizer, messages, learned):
            return [whole]
        rows = [_by_prefixes(tokenizer, messages[: answer + 1], [answer]) for answer in learned]
    if None in rows:
        raise DataError(
            f"{where}: the chat template does not render the request, with the generation prompt, as the beginning of "
            "the conversation: what the assistant wrote cannot be told. Give a template with {% generation %} marks "
            "around it (data.chat_template)"
        )
    return [row for row in rows if row is not None]


def render_whole(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], where: str) -> Rendered:
    """Return a conversation in one row and one span, whoever wrote what.

    Raises:
        DataError: The template refuses the conversation.
    """
    with _refusals(where):
        whole = ids(tokenizer, messages)
    return Rendered(whole, [(0, len(whole))])


def ids(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], **options: Any) -> list[int]:
    """Return the token ids of a conversation as the template renders it."""
    return list(_encoded(tokenizer, messages, **options)["input_ids"])


def teaches_to_stop(tokenizer: PreTrainedTokenizerBase, row: Rendered) -> bool:
    """Whether what is learned ends in an end token; a model that learns none does not end its answers."""
    special = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
    _, stop = row.spans[-1]
    # The line break that many templates put behind the end token does not matter.
    ending = itertools.dropwhile(lambda token: not str(tokenizer.decode([token])).strip(), reversed(row.ids[:stop]))
    return next(ending, None) in special


@contextmanager
def _refusals(where: str) -> Iterator[None]:
    try:
        yield
    except TemplateError as error:
        raise DataError(f"{where}: the chat template refuses it: {error}") from error


def _encoded(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], **options: Any) -> Any:
    return tokenizer.apply_chat_template(list(messages), date_string=_DATE, **options)


def _by_prefixes(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], answers: Sequence[int]
) -> Rendered | None:
    """Return the conversation in one row, or None if one of its parts is not rendered as a prefix of it."""
    whole = ids(tokenizer, messages)
    spans = []
    for answer in answers:
        request = ids(tokenizer, messages[:answer], add_generation_prompt=True)
        answered = whole if answer == len(messages) - 1 else ids(tokenizer, messages[: answer + 1])
        if answered[: len(request)] != request or whole[: len(answered)] != answered:
            return None
        spans.append((len(request), len(answered)))
    return Rendered(whole, spans)


def _marked(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], answers: Sequence[int], first: int, where: str
) -> Rendered:
    encoded = _encoded(tokenizer, messages, return_assistant_tokens_mask=True)
    spans = []
    for marked, run in itertools.groupby(enumerate(encoded["assistant_masks"]), key=lambda pair: pair[1]):
        if marked:
            positions = [position for position, _ in run]
            spans.append((positions[0], positions[-1] + 1))
    if len(spans) != len(answers):
        raise DataError(
            f"{where}: the chat template's {{% generation %}} marks hold {len(spans)} messages, and the assistant "
            f"wrote {len(answers)}"
        )
    return Rendered(
        list(encoded["input_ids"]), [span for answer, span in zip(answers, spans, strict=True) if answer >= first]
    )
