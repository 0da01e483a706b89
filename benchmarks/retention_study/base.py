"""The bases of the retention study: character-level Llamas of 0.9 M parameters, trained from scratch."""

from pathlib import Path

import torch
from datasets import Dataset
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from training.arguments import sft_config
from training.base import made_config
from training.recipe import Made, Train
from training.trainer import ControlTrainer

CONTEXT = 96
LETTERS = "abcdefghijklmnop"
SHAPE = Made(hidden_size=96, intermediate_size=256, layers=8, heads=4, context=CONTEXT, initializer_range=0.06)


def train_base(tokenizer: PreTrainedTokenizerBase, rows: Dataset, seed: int, train: Train, out: Path) -> None:
    """Train a fresh model on rows that are in the order of training, and write it with its tokenizer."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(made_config(SHAPE, tokenizer))
    args = sft_config(train, seed, out)
    ControlTrainer(model=model, args=args, train_dataset=rows, processing_class=tokenizer).train()
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
