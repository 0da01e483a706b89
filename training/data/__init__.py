"""Training data: from files and the Hub to rows of tokens in training order.

`load` reads and encodes a recipe's `data` section; the `Corpus` that it returns gives any number of rows. What the
demo's generated skills and the scored skills need (`Chat`, `draw`, `held_out`, …) is in `training.data.chats`.
"""

from training.data.chats import (
    Chat,
    chat,
    dataset,
    draw,
    encode,
    held_out,
    mixture,
    read_jsonl,
    token_ids,
)
from training.data.corpus import Corpus
from training.data.facts import Facts, describe
from training.data.formats import DataError, Message
from training.data.loading import load
from training.data.preview import preview
from training.data.rows import IGNORED
from training.data.tokenizer import load_tokenizer

__all__ = [
    "IGNORED",
    "Chat",
    "Corpus",
    "DataError",
    "Facts",
    "Message",
    "chat",
    "dataset",
    "describe",
    "draw",
    "encode",
    "held_out",
    "load",
    "load_tokenizer",
    "mixture",
    "preview",
    "read_jsonl",
    "token_ids",
]
