"""The hidden states that the frozen layers below an expansion make of each document, computed once and kept on disk.

A document attends to itself only, in a row of its own or in one that it shares with others, so its states follow from
its tokens alone, and by its tokens they are found: rows, epochs, packing, accumulation, processes and resuming do not
come into it, and data or a chat template that changed have other tokens. All else that the states depend on, weights
first, is in the file's name, and the file gets that name when it is whole. Whether a training has such states, and is
better off with them: `training.trunk`. Shapes: B sequences, T tokens, H hidden size.
"""

import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel

from cllm_model.modeling import ControlLLMForCausalLM
from training import processes

log = logging.getLogger(__name__)
Tokens = NDArray[np.int32]
_AT_ONCE = 8192  # tokens in one forward pass


def documents_of(rows: Dataset) -> Iterator[Tokens]:
    """Yield the documents of rows, each document of a packed row by itself."""
    packed = "seq_lengths" in rows.column_names
    wanted = rows.select_columns(["input_ids", "seq_lengths"] if packed else ["input_ids"])
    for table in wanted.with_format("arrow").iter(batch_size=1000):
        ids = table["input_ids"].combine_chunks()
        lengths = table["seq_lengths"].combine_chunks().flatten() if packed else ids.value_lengths()
        yield from np.split(ids.flatten().to_numpy().astype(np.int32), np.cumsum(lengths.to_numpy())[:-1])


class Visits(NamedTuple):
    """What a training goes through of one source of sequences.

    Attributes:
        tokens: Tokens of all distinct ones.
        times: How often the training comes by such a token, on average.
    """

    tokens: float
    times: float

    @classmethod
    def of(cls, parts: Iterable[tuple[float, float]]) -> "Visits":
        """From the tokens of parts and how often each part is gone through: less than once, some tokens never are."""
        counted = list(parts)
        distinct = sum(tokens * min(passes, 1) for tokens, passes in counted)
        return cls(distinct, sum(tokens * passes for tokens, passes in counted) / distinct)


class Documents:
    """The distinct documents of one source of a training, read when they are first asked for.

    Args:
        sequences: What the training goes through, each time that it does.
    """

    def __init__(self, sequences: Iterable[Tokens]) -> None:
        self._sequences = sequences
        self._seen = 0

    @cached_property
    def distinct(self) -> Mapping[bytes, Tokens]:
        """Each document once, by a digest of its tokens."""
        found: dict[bytes, Tokens] = {}
        for tokens in self._sequences:
            found.setdefault(_digest(tokens), tokens)
            self._seen += len(tokens)
        return found

    @property
    def visits(self) -> Visits:
        """How many tokens there are, and how often the training comes by one."""
        tokens = sum(map(len, self.distinct.values()))
        return Visits(tokens, self._seen / tokens)


class States:
    """The states of documents, memory-mapped.

    Args:
        file: The states one after another, without a header.
        documents: The documents in the file's order.
        width: H.
        dtype: Of the states.
    """

    def __init__(self, file: Path, documents: Mapping[bytes, Tokens], width: int, dtype: torch.dtype) -> None:
        starts = np.cumsum([0, *map(len, documents.values())])
        self._starts = dict(zip(documents, starts.tolist(), strict=False))
        size = int(starts[-1]) * width
        # Shared, though nothing writes: Linux refuses a private mapping that is larger than the memory.
        self._states = torch.from_file(str(file), shared=True, size=size, dtype=dtype).view(-1, width)

    def of(self, batch: Mapping[str, Tensor]) -> Tensor:
        """The states of a batch on the CPU, (B, T, H), 0 where there is padding.

        Args:
            batch: `input_ids`, (B, T), with `attention_mask` if padded on the right, or with `position_ids` that start
                again at 0 with each document.

        Raises:
            KeyError: A document is not among those that were computed.
        """
        ids = batch["input_ids"].numpy().astype(np.int32)
        found = self._states.new_zeros(*ids.shape, self._states.shape[1])
        for row, start, stop in _places(batch):
            first = self._starts[_digest(ids[row, start:stop])]
            found[row, start:stop] = self._states[first : first + stop - start]
        return found


@dataclass(frozen=True)
class WithStates:
    """Something that makes batches, which hold their states then, as `trunk_states`."""

    make: Callable[..., dict[str, Tensor]]
    states: States

    def __call__(self, *args: Any) -> dict[str, Tensor]:
        """Make a batch."""
        batch = self.make(*args)
        return {**batch, "trunk_states": self.states.of(batch)}

    batch = __call__  # as a rehearsal pool's


@dataclass(frozen=True)
class TrunkCache:
    """The cache of one training.

    Attributes:
        directory: Its own, on a disk that all processes share.
        sources: Name -> documents of each source whose states are kept.
    """

    directory: Path
    sources: Mapping[str, Documents]

    def open(self, model: PreTrainedModel, precision: Literal["fp32", "bf16"]) -> dict[str, States]:
        """Map the states of each source; if there is no whole file of them, all processes compute it together.

        Args:
            model: As it is trained, not yet compiled; it is moved to the device of this process.
            precision: In what the training computes.
        """
        assert isinstance(model, ControlLLMForCausalLM)
        distinct = {key: tokens for source in self.sources.values() for key, tokens in source.distinct.items()}
        documents = dict(sorted(distinct.items(), key=lambda item: (len(item[1]), item[0])))
        if not documents:
            return {}
        trunk = _Trunk(model, precision)
        name = hashlib.sha256(trunk.key() + b"".join(documents)).hexdigest()
        file = self.directory / f"{name[:32]}.states"
        size = sum(map(len, documents.values())) * trunk.width * trunk.dtype.itemsize
        if not (file.exists() and file.stat().st_size == size):
            self._write(file, size, list(_groups(documents.values())), trunk)
        return dict.fromkeys(self.sources, States(file, documents, trunk.width, trunk.dtype))

    def _write(self, file: Path, size: int, groups: list[Tokens], trunk: "_Trunk") -> None:
        """Compute the states beside the file's place, each process its share of the groups, then rename it."""
        began = time.monotonic()
        beside = file.with_name(f".{file.name}.part")
        if processes.is_first():
            self.directory.mkdir(parents=True, exist_ok=True)
            for left in self.directory.iterdir():  # by an attempt that was killed, or made with other weights
                left.unlink()
            with beside.open("wb") as new:
                new.truncate(size)
        processes.wait()
        starts = np.cumsum([0, *(group.size for group in groups)]).tolist()
        with beside.open("r+b") as out:
            for number in range(processes.rank(), len(groups), processes.count()):
                out.seek(starts[number] * trunk.width * trunk.dtype.itemsize)
                out.write(trunk(groups[number]).view(torch.uint8).numpy().data)
            out.flush()
            os.fsync(out.fileno())
        processes.wait()
        if processes.is_first():
            beside.replace(file)
            log.info("trunk cache: %.3g GiB computed in %.1f s", size / 2**30, time.monotonic() - began)
        processes.wait()


class _Trunk:
    """The layers below an expansion, as a model of the base's family over the modules of the expanded one."""

    def __init__(self, model: ControlLLMForCausalLM, precision: Literal["fp32", "bf16"]) -> None:
        whole = model.model.to(processes.device())
        config = model.config.base_config()
        config.num_hidden_layers = whole.first_layer
        if getattr(config, "layer_types", None):
            config.layer_types = config.layer_types[: whole.first_layer]
        attention = model.config._attn_implementation
        with torch.device("meta"):
            self._layers: PreTrainedModel = AutoModel.from_config(config, attn_implementation=attention)
        self._layers.embed_tokens = whole.embed_tokens
        self._layers.layers = whole.layers[: whole.first_layer]
        self._layers.norm = nn.Identity()
        self._layers.rotary_emb = whole.rotary_emb
        self._layers.eval()
        self._settings = f"{config.to_json_string()} {attention} {precision}"
        self._autocast = torch.autocast(processes.device().type, torch.bfloat16, enabled=precision == "bf16")
        self.width: int = config.hidden_size
        self.dtype = self(np.zeros((1, 1), np.int32)).dtype

    @torch.inference_mode()
    def __call__(self, ids: Tokens) -> Tensor:
        """The states of documents of one length, (B, T) -> (B, T, H), on the CPU."""
        with self._autocast:
            batch = torch.from_numpy(ids).long().to(processes.device())
            states: Tensor = self._layers(input_ids=batch, use_cache=False).last_hidden_state
        return states.cpu().contiguous()

    def key(self) -> bytes:
        """A digest of weights and settings."""
        found = hashlib.sha256(self._settings.encode())
        for name, weight in self._layers.named_parameters():
            found.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
            found.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy().data)
        return found.digest()


def _groups(documents: Iterable[Tokens]) -> Iterator[Tokens]:
    """Documents in ascending order of their lengths as batches, (B, T), without padding."""
    for length, same in groupby(documents, key=len):
        together = np.stack(list(same))
        at_once = max(1, _AT_ONCE // length)
        yield from (together[start : start + at_once] for start in range(0, len(together), at_once))


def _places(batch: Mapping[str, Tensor]) -> Iterator[tuple[int, int, int]]:
    """Yield the row, start and stop of each document of a batch."""
    if "position_ids" not in batch:
        yield from ((row, 0, length) for row, length in enumerate(batch["attention_mask"].sum(dim=1).tolist()))
        return
    for row, positions in enumerate(batch["position_ids"]):
        starts = (positions == 0).nonzero().flatten().tolist()
        yield from ((row, start, stop) for start, stop in pairwise([*starts, len(positions)]))


def _digest(tokens: Tokens) -> bytes:
    return hashlib.blake2b(tokens.tobytes(), digest_size=16).digest()
