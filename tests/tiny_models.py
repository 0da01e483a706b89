"""Tiny random checkpoints of every family, expansion and merge method, with heads of 32 as vLLM's CPU kernels need."""

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedTokenizerFast

from cllm_model import ControlLLMConfig
from cllm_model.expand import expand, extract
from cllm_model.names import split_layer, to_module
from cllm_model.published import to_published

VOCABULARY = ["<pad>", "<s>", "</s>", *map(chr, range(32, 127))]
CHAT_TEMPLATE = "{% for message in messages %}{{ message.role[0] }}:{{ message.content }};{% endfor %}a:"
LLAMA_31_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,  # so that prompts of a few dozen tokens feel the scaling
}


def write_base(directory: Path, seed: int = 0, family: str = "llama", **fields: object) -> Path:
    """Write a random base model with a character-level tokenizer and a chat template."""
    torch.manual_seed(seed)
    config = CONFIG_MAPPING[family](
        **{
            "vocab_size": len(VOCABULARY),
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 4,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "max_position_embeddings": 512,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "initializer_range": 0.15,  # wide, so that greedy answers do not repeat one token
            "dtype": "float32",
            **({} if family == "qwen2" else {"head_dim": 32}),  # Qwen2 has no such field: H / heads is 32 as well
            **fields,
        }
    )
    model = AutoModelForCausalLM.from_config(config)
    # As decided as a trained model: near ties cannot be compared between engines. A tied table is made sharper by the
    # final norm, for its rows are the inputs too.
    sharp = model.model.norm if config.tie_word_embeddings else model.lm_head
    sharp.weight.data *= 8
    for name, parameter in model.named_parameters():
        if name.endswith(".bias"):
            parameter.data.normal_(std=0.15)  # fresh ones are 0
    model.save_pretrained(directory)
    tokenizer = Tokenizer(models.WordLevel({token: i for i, token in enumerate(VOCABULARY)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", chat_template=CHAT_TEMPLATE
    )
    fast.save_pretrained(directory)
    return directory


def write_dual(
    base: Path, directory: Path, method: str = "dlerp", layers: int = 2, trained: bool = True, **options: object
) -> Path:
    """Write an expansion of a base; in a trained one all that was added differs from its fresh state.

    Args:
        options: Passed on to `expand`: kind, factor, norm_alpha.
    """
    config = expand(base, directory, layers=layers, method=method, **options)
    if trained:
        generator = torch.Generator().manual_seed(1)
        file = directory / "model.safetensors"
        tensors = load_file(file)
        for name, tensor in tensors.items():
            if spread := _spread(name, config):
                tensors[name] = tensor + spread * torch.randn(tensor.shape, generator=generator).to(tensor.dtype)
        save_file(tensors, file, metadata={"format": "pt"})
    return directory


def _spread(name: str, config: ControlLLMConfig) -> float:
    """How far training would move a tensor: gates far enough to vary by token, maps and copies less."""
    layer, rest = split_layer(name)
    if "expanded_layer" in rest or layer in config.dual.stacked_layers:
        return 0.05
    if ".interpolator." in to_module(name):
        return 0.05 if rest in ("linear_proj.weight", "lateral_connection.weight") else 0.3
    return 0.0


def write_published(model: Path, directory: Path) -> Path:
    """Write the same checkpoint with its config in the published format, as its authors' code would."""
    shutil.copytree(model, directory)
    to_published(ControlLLMConfig.from_pretrained(model)).save_pretrained(directory)
    return directory


def write_extracted(model: Path, directory: Path) -> Path:
    """Write the base branch of an expanded checkpoint as a plain checkpoint."""
    extract(model, directory)
    return directory
