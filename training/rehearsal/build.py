"""Makes the pool of a run: the teacher answers requests, its predictions are cached, the samples are shown."""

import logging
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from training.evaluation.generation import padded, padding
from training.recipe import Rehearsal
from training.rehearsal.pool import write
from training.rehearsal.quality import Quality
from training.rehearsal.sampling import sample

log = logging.getLogger(__name__)
_LOGITS = 2**26
"""Logits computed at once, 256 MiB in fp32: with a large vocabulary they are most of what sampling needs."""
_SHOWN = 8


def build(
    teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: Rehearsal, seed: int, out: Path
) -> Quality:
    """Write a pool of what `teacher` wrote, log some of it, and warn if it is not fit to be rehearsed.

    Args:
        teacher: The model whose skills are to be kept: the base, or a controlled model that is trained further.
        tokenizer: Its tokenizer.
        settings: The recipe's.
        seed: Of the sampling.
        out: File to write.

    Raises:
        RuntimeError: In a chat, fewer sequences than wanted have an answer and an end.
    """
    sampled = sample(teacher, tokenizer, settings, seed)
    quality = Quality.of(sampled)
    whole = [s.tokens for s in sampled if s.ended or tokenizer.chat_template is None]
    usable = whole[: settings.sequences]
    for one in sampled[:_SHOWN]:
        log.info("rehearsal: %r", tokenizer.decode(one.tokens))
    if len(whole) < len(sampled):
        log.info(
            "rehearsal: %d of %d sequences did not end within %d tokens; they are left out, and what is long is "
            "rehearsed less",
            len(sampled) - len(whole),
            len(sampled),
            settings.max_tokens,
        )
    for warning in quality.warnings():
        log.warning("rehearsal: %s; was the base trained on requests, not on answers only?", warning)
    if len(usable) < settings.sequences:
        raise RuntimeError(
            f"rehearsal: only {len(usable)} of {len(sampled)} sequences were answered and ended within "
            f"{settings.max_tokens} tokens, {settings.sequences} are wanted; was the base trained on requests, not on "
            "answers only?"
        )
    write(out, usable, _logits(teacher, usable, padding(tokenizer)), settings.top_k)
    return quality


@torch.inference_mode()
def _logits(teacher: PreTrainedModel, sequences: list[list[int]], pad_token_id: int) -> Iterator[Tensor]:
    """Yield the teacher's logits on each sequence, (T, V), in order."""
    teacher.eval()
    at_once = max(1, _LOGITS // (max(map(len, sequences)) * teacher.config.vocab_size))
    for start in range(0, len(sequences), at_once):
        rows = sequences[start : start + at_once]
        batch = {name: tensor.to(teacher.device) for name, tensor in padded(rows, pad_token_id).items()}
        logits = teacher(**batch, use_cache=False).logits.cpu()
        yield from (found[: len(row)] for found, row in zip(logits, rows, strict=True))
