"""The demo's base model: a small Llama with a character tokenizer, made from seeds on the original skills."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from training import data
from training.optimise import optimise
from training.recipe import Made, SkillName
from training.tokenizer import character_tokenizer

log = logging.getLogger(__name__)


def made_config(settings: Made, tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """The configuration of a base that is made here."""
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden_size,
        intermediate_size=settings.intermediate_size,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads,
        max_position_embeddings=settings.context,
        initializer_range=settings.initializer_range,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def make_base(
    settings: Made, originals: Sequence[SkillName], seed: int, scratch: Path
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast, list[dict[str, float]]]:
    """Train a base model on the original skills; returns it with its tokenizer and the log of its loss."""
    torch.manual_seed(seed)
    tokenizer = character_tokenizer(settings.context)
    model: PreTrainedModel = LlamaForCausalLM(made_config(settings, tokenizer))
    logs: list[dict[str, float]] = []
    for number, stage in enumerate(settings.stages):
        weights: dict[str, float] = {name: stage.weights.get(name, 1.0) for name in originals}
        chats = data.mixture(weights, stage.train.steps * stage.train.batch_size, seed + number)
        log.info("base: %s parameters, stage %s: %s steps", f"{model.num_parameters():,}", number, stage.train.steps)
        rows = data.dataset(tokenizer, chats, stage.train.batch_size, stage.prompt_share, seed + number)
        model, state = optimise(model, tokenizer, rows, stage.train, seed + number, scratch)
        logs += [entry for entry in state.log_history if "loss" in entry]
    return model, tokenizer, logs
