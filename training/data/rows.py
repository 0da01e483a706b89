"""Examples as rows of token ids and labels: what is learned, and what happens to what is too long.

Texts and prompts without a template are tokenized as they are and end with the end-of-text token. A completion is
tokenized together with its prompt where that leaves the prompt's tokens as they are, and by itself where a token would
span both: in use, the prompt is tokenized alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, cast

from datasets import Features, List, Value
from transformers import PreTrainedTokenizerBase

from training.data import template
from training.data.formats import Example
from training.data.template import Rendered

IGNORED = -100

ROW = Features(
    {
        "input_ids": List(Value("int32")),
        "labels": List(Value("int32")),
        "tokens": Value("int32"),
        "learned": Value("int32"),
        "overlong": Value("bool"),
        "where": Value("string"),
    }
)


class Row(TypedDict):
    """A row as it is stored.

    Attributes:
        input_ids: The tokens.
        labels: The same, `IGNORED` where nothing is learned.
        tokens: Number of tokens.
        learned: How many of them are learned; the first is not, for there is nothing to predict it from.
        overlong: Whether the document was longer than a row; of a split one, the first piece says so.
        where: File and line.
    """

    input_ids: list[int]
    labels: list[int]
    tokens: int
    learned: int
    overlong: bool
    where: str


@dataclass(frozen=True)
class Encoder:
    """Turns examples into rows.

    Attributes:
        tokenizer: The base model's.
        max_length: Tokens in a row.
        overlong: What happens to longer ones; those to be dropped are only marked here.
        learn: Loss on completions only, or on everything.
    """

    tokenizer: PreTrainedTokenizerBase
    max_length: int
    overlong: Literal["truncate", "drop", "split"]
    learn: Literal["completion", "all"]

    def batch(self, examples: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        """Return the rows of a batch of examples, by column, as `Dataset.map` has both."""
        columns = zip(*examples.values(), strict=True)
        each = (cast(Example, dict(zip(examples, values, strict=True))) for values in columns)
        rows = [row for example in each for row in self(example)]
        return {name: [row[name] for row in rows] for name in ROW}  # type: ignore[literal-required]

    def __call__(self, example: Example) -> list[Row]:
        """Return the rows of one example.

        Raises:
            DataError: The chat template cannot render it exactly.
        """
        rendered = self.render(example)
        if not _says_anything(example):
            rendered = [Rendered(row.ids, []) for row in rendered]
        return [row for whole in rendered for row in self._rows(whole, example["where"])]

    def render(self, example: Example) -> list[Rendered]:
        """Return an example's tokens at full length, with the spans that are learned."""
        messages, where = example["messages"], example["where"]
        if not messages:
            return [self._plain(example["prompt"], example["completion"])]
        if self.learn == "all":
            return [template.render_whole(self.tokenizer, messages, where)]
        return template.render(self.tokenizer, messages, example["first"], where)

    def _plain(self, prompt: str, completion: str) -> Rendered:
        before = self._text(prompt) if prompt else []
        whole = self._text(prompt + completion)
        if whole[: len(before)] != before:
            whole = before + list(self.tokenizer(completion, add_special_tokens=False)["input_ids"])
        whole.append(cast(int, self.tokenizer.eos_token_id))
        return Rendered(whole, [(0 if self.learn == "all" else len(before), len(whole))])

    def _text(self, text: str) -> list[int]:
        """A text's tokens; some tokenizers end it by themselves, and it may go on."""
        found = list(self.tokenizer(text)["input_ids"])
        return found[:-1] if found[-1:] == [self.tokenizer.eos_token_id] else found

    def _rows(self, whole: Rendered, where: str) -> list[Row]:
        labels = [IGNORED] * len(whole.ids)
        for start, stop in whole.spans:
            labels[start:stop] = whole.ids[start:stop]
        size, length = len(whole.ids), self.max_length
        pieces = {
            "truncate": [slice(0, length)],
            "drop": [slice(0, size)],
            "split": [slice(start, start + length) for start in range(0, size, length)],
        }[self.overlong]
        return [
            Row(
                input_ids=whole.ids[piece],
                labels=labels[piece],
                tokens=len(labels[piece]),
                learned=len(labels[piece][1:]) - labels[piece][1:].count(IGNORED),
                overlong=size > length and piece.start == 0,
                where=where,
            )
            for piece in pieces
        ]


def _says_anything(example: Example) -> bool:
    """Whether any text is to be learned: an answer of nothing would teach to end at once."""
    answers = (m["content"] for m in example["messages"][example["first"] :] if m["role"] == "assistant")
    return any(text.strip() for text in (example["completion"], *answers))
