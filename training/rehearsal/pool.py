"""The rehearsed sequences of a run with the teacher's predictions, in one safetensors file.

Of each position the file keeps the `top_k` most probable next tokens and, as one class, the mass of all others. It is
read by memory map: what an update does not draw stays on disk. Which sequences an update draws follows from the seed
and the update's number alone, so a resumed run sees what the unbroken one would have seen.
"""

import random
from collections.abc import Iterable
from pathlib import Path
from typing import cast

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

LOWEST = -30.0
"""Log-probability that stands for 0."""


class Pool:
    """Batches of rehearsed sequences.

    Args:
        file: Written by `write`.
        batch_size: Sequences of an update.
        parts: Micro-batches that an update is split into, over accumulation and ranks; divides `batch_size`.
        pad_token_id: What fills up shorter sequences.
        seed: Of the draw.

    Raises:
        ValueError: The pool is smaller than a batch, or `parts` does not divide it.
    """

    def __init__(self, file: Path, batch_size: int, parts: int, pad_token_id: int, seed: int) -> None:
        self._file = safe_open(file, framework="pt")
        self.offsets: list[int] = self._file.get_tensor("offsets").tolist()
        self.batch_size = batch_size
        self.parts = parts
        self.pad_token_id = pad_token_id
        self.seed = seed
        if batch_size % parts:
            raise ValueError(f"rehearsal.batch_size: {batch_size} cannot be split into {parts} equal parts")
        if len(self) < batch_size:
            raise ValueError(f"rehearsal.batch_size: {batch_size} is larger than the pool of {len(self)} sequences")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def tokens(self, index: int) -> list[int]:
        """Token ids of one sequence."""
        return cast(list[int], self._read("tokens", index).tolist())

    def batch(self, update: int, part: int) -> dict[str, Tensor]:
        """One micro-batch of an update: the draw is sorted by length and split, short sequences first.

        Returns:
            `input_ids` and `attention_mask`, (B, T), padded on the right; `top_ids` and `top_logprobs`, (B, T, K), and
            `rest_logprobs`, (B, T): the teacher's prediction of the token behind each position.
        """
        drawn = random.Random(f"{self.seed}/{update}").sample(range(len(self)), self.batch_size)
        drawn.sort(key=lambda index: (self.offsets[index + 1] - self.offsets[index], index))
        step = self.batch_size // self.parts
        rows = drawn[part * step : (part + 1) * step]

        def padded(name: str, value: float = 0) -> Tensor:
            tensors = [self._read(name, index) for index in rows]
            return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=value)

        lengths = torch.tensor([self.offsets[index + 1] - self.offsets[index] for index in rows])
        return {
            "input_ids": padded("tokens", self.pad_token_id).long(),
            "attention_mask": (torch.arange(int(lengths.max())) < lengths[:, None]).long(),
            "top_ids": padded("top_ids").long(),
            "top_logprobs": padded("top_logprobs").float(),
            "rest_logprobs": padded("rest_logprobs").float(),
        }

    def _read(self, name: str, index: int) -> Tensor:
        found = self._file.get_slice(name)[self.offsets[index] : self.offsets[index + 1]]
        return cast(Tensor, found)


def write(file: Path, sequences: list[list[int]], predictions: Iterable[Tensor], top_k: int) -> None:
    """Write a pool beside its place, then rename it.

    Args:
        file: Where to.
        sequences: Token ids.
        predictions: The teacher's logits on each sequence, (T, V), in the same order.
        top_k: Predictions to keep of a position.
    """
    compact = [compress(logits, top_k) for logits in predictions]
    lengths = torch.tensor([0, *map(len, sequences)])
    tensors = {
        "tokens": torch.tensor([token for tokens in sequences for token in tokens], dtype=torch.int32),
        "offsets": lengths.cumsum(0),
        "top_ids": torch.cat([ids.int() for ids, _, _ in compact]),
        "top_logprobs": torch.cat([top.half() for _, top, _ in compact]),
        "rest_logprobs": torch.cat([rest.half() for _, _, rest in compact]),
    }
    beside = file.with_name(f".{file.name}.part")
    save_file(tensors, beside)
    beside.replace(file)


def compress(logits: Tensor, top_k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (T, V) as ids and log-probabilities of the top classes, (T, K), and that of the rest, (T,)."""
    logprobs = logits.float().log_softmax(dim=-1)
    top, ids = logprobs.topk(min(top_k, logits.shape[-1]), dim=-1)
    rest = logprobs.scatter(-1, ids, -torch.inf).logsumexp(dim=-1)
    return ids, top.clamp_min(LOWEST), rest.clamp_min(LOWEST)
