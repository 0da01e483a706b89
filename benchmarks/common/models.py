"""The random models of the benchmarks: a base of 75.5 M parameters and its expansion, from a seed, on disk."""

from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from cllm_model.expand import expand, extract

VOCABULARY = 16_384
EXPANDED_LAYERS = 4


def build(directory: Path, dtype: torch.dtype) -> dict[str, Path]:
    """Write the base, its expansion, and the base extracted from it; the answers of all of them have no end.

    Returns:
        Directories of `base` and `dual`.
    """
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=8,
        num_attention_heads=12,
        num_key_value_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
    )
    LlamaForCausalLM(config).to(dtype).save_pretrained(directory / "made")
    expand(directory / "made", directory / "dual", layers=EXPANDED_LAYERS, method="dlerp")
    extract(directory / "dual", directory / "base")
    return {"base": directory / "base", "dual": directory / "dual"}


def word(token: int) -> str:
    """Return the word that is a token."""
    return f"w{token}"


def write_tokenizer(directory: Path) -> None:
    """Write a tokenizer whose tokens are words, so that the words of a text are its number of tokens."""
    tokenizer = Tokenizer(WordLevel({word(token): token for token in range(VOCABULARY)}, unk_token=word(0)))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(directory)
