"""Tiny random Llama checkpoints on disk, with heads of 32 as vLLM's CPU attention needs them."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from cllm_model.expand import expand, extract

VOCABULARY = ["<pad>", "<s>", "</s>", *map(chr, range(32, 127))]
CHAT_TEMPLATE = "{% for message in messages %}{{ message.role[0] }}:{{ message.content }};{% endfor %}a:"


def write_base(directory: Path, seed: int = 0, **fields: object) -> Path:
    """Write a random base model with a character-level tokenizer and a chat template."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        **{
            "vocab_size": len(VOCABULARY),
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 4,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 32,
            "max_position_embeddings": 512,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "initializer_range": 0.15,  # wide, so that greedy answers do not repeat one token
            "dtype": "float32",
            **fields,
        }
    )
    model = LlamaForCausalLM(config)
    model.lm_head.weight.data *= 8  # as decided as a trained model: near ties cannot be compared between engines
    model.save_pretrained(directory)
    tokenizer = Tokenizer(models.WordLevel({token: i for i, token in enumerate(VOCABULARY)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", chat_template=CHAT_TEMPLATE
    )
    fast.save_pretrained(directory)
    return directory


def write_dual(base: Path, directory: Path, method: str = "dlerp", layers: int = 2, trained: bool = True) -> Path:
    """Write an expansion of a base; a trained one has branches that differ and a gate that varies by token."""
    expand(base, directory, layers=layers, method=method)
    if trained:
        generator = torch.Generator().manual_seed(1)
        file = directory / "model.safetensors"
        tensors = load_file(file)
        for name, tensor in tensors.items():
            if "expanded_layer" in name:
                tensors[name] = tensor + 0.05 * torch.randn(tensor.shape, generator=generator)
            if "interp" in name:
                tensors[name] = 0.3 * torch.randn(tensor.shape, generator=generator)
        save_file(tensors, file, metadata={"format": "pt"})
    return directory


def write_extracted(model: Path, directory: Path) -> Path:
    """Write the base branch of a dual-branch checkpoint as a plain checkpoint."""
    extract(model, directory)
    return directory
