"""The bases of the retention study: character-level Llamas of 0.9 M parameters, trained from scratch."""

from pathlib import Path

import torch
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from training.arguments import sft_config
from training.recipe import Train
from training.trainer import ControlTrainer

CONTEXT = 96
LETTERS = "abcdefghijklmnop"


def train_base(tokenizer: PreTrainedTokenizerBase, rows: Dataset, seed: int, train: Train, out: Path) -> None:
    """Train a fresh model on rows that are in the order of training, and write it with its tokenizer."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=8,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT,
        initializer_range=0.06,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    args = sft_config(train, seed, out)
    ControlTrainer(model=model, args=args, train_dataset=rows, processing_class=tokenizer).train()
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
