"""The demo's base model: a small Llama with a character tokenizer, made from seeds on the original skills."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM
from trl import SFTTrainer

from training import data
from training.recipe import Made, SkillName
from training.tokenizer import character_tokenizer
from training.trainer import log_steps, sft_config

log = logging.getLogger(__name__)


def make_base(settings: Made, originals: Sequence[SkillName], seed: int, out: Path) -> list[dict[str, float]]:
    """Train a base model on the original skills, write it to `out`, and return the log of its loss."""
    torch.manual_seed(seed)
    tokenizer = character_tokenizer(settings.context)
    model = LlamaForCausalLM(
        LlamaConfig(
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
    )
    logs: list[dict[str, float]] = []
    for number, stage in enumerate(settings.stages):
        weights: dict[str, float] = {name: stage.weights.get(name, 1.0) for name in originals}
        chats = data.mixture(weights, stage.train.steps * stage.train.batch_size, seed + number)
        log.info("base: %s parameters, stage %s: %s steps", f"{model.num_parameters():,}", number, stage.train.steps)
        trainer = SFTTrainer(
            model=model,
            args=sft_config(stage.train, seed + number, out),
            train_dataset=data.dataset(tokenizer, chats, stage.train.batch_size, stage.prompt_share, seed + number),
            processing_class=tokenizer,
        )
        log_steps(trainer)
        trainer.train()
        model.save_pretrained(out)
        logs += [entry for entry in trainer.state.log_history if "loss" in entry]
    tokenizer.save_pretrained(out)
    return logs
