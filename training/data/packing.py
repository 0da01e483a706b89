"""Several documents in a row, so that rows are full and nothing is padding.

Rows are filled by TRL's best-fit-decreasing packing. They hold `seq_lengths`, from which TRL's padding-free collator
makes positions that start again at 0 with each document, and no attention mask. From such positions transformers tells
the documents apart and lets none attend to another (`masking_utils.find_packed_sequence_indices`; the flash-attention
kernels take the lengths), and the collator ignores the label of each document's first token. An attention mask, or a
cache of keys and values, would switch that off without a word.
"""

import math

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from trl.data_utils import pack_dataset

_WINDOW = 64
"""Rows that are filled together: the last of them may stay half empty, and all are held in memory."""


def pack(rows: Dataset, lengths: NDArray[np.integer], max_length: int) -> Dataset:
    """Return packed rows of at most `max_length` tokens: `input_ids`, `labels` and `seq_lengths`.

    Args:
        rows: Documents in the order wanted, none longer than `max_length`; those close to each other share rows.
        lengths: Their numbers of tokens.
        max_length: Tokens in a packed row.
    """
    window = max(1, math.ceil(_WINDOW * max_length / lengths.mean()))
    return pack_dataset(rows.select_columns(["input_ids", "labels"]), max_length, "bfd", {"batch_size": window})
