"""Rows as people can read them: the text with what is learned marked, in brackets and in colour."""

from collections.abc import Iterator
from itertools import groupby

import typer
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from training.data.rows import IGNORED


def preview(rows: Dataset, tokenizer: PreTrainedTokenizerBase, count: int) -> Iterator[str]:
    """Yield the first rows, in training order: what is learned in ⟦brackets⟧ and green, the rest faint.

    Colours are terminal codes, which `typer.echo` leaves out where the output is not a terminal.
    """
    for number, row in enumerate(rows.select(range(min(count, len(rows)))), 1):
        lengths = row.get("seq_lengths", [len(row["input_ids"])])
        where = row.get("where", f"{len(lengths)} documents")
        texts, learned, start = [], 0, 0
        for length in lengths:
            ids, labels = (row[name][start : start + length] for name in ("input_ids", "labels"))
            # Nothing stands before a document's first token that it could be predicted from.
            mask = [False, *(label != IGNORED for label in labels[1:])]
            texts.append(_marked(ids, mask, tokenizer))
            learned += sum(mask)
            start += length
        head = f"row {number}: {start} tokens, {learned} learned, {where}"
        yield "\n".join([typer.style(head, bold=True), *texts])


def _marked(ids: list[int], mask: list[bool], tokenizer: PreTrainedTokenizerBase) -> str:
    parts = []
    for learned, run in groupby(zip(ids, mask, strict=True), key=lambda pair: pair[1]):
        text = str(tokenizer.decode([token for token, _ in run]))
        parts.append(typer.style(f"⟦{text}⟧", fg="green") if learned else typer.style(text, dim=True))
    return "".join(parts)
