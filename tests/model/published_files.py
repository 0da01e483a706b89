"""Checkpoints in the published format, of any family, written from random numbers without any of our own code.

config.json has the fields that transformers 4.49 (Qwen3: 4.51) wrote for the family, with the authors' `expansion`.
"""

import copy
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

HIDDEN, VOCABULARY = 32, 64
_COMMON: dict[str, Any] = {
    "_name_or_path": "/models/base",
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": HIDDEN,
    "initializer_range": 0.15,  # wide, so that greedy answers do not repeat one token
    "intermediate_size": 48,
    "max_position_embeddings": 256,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "transformers_version": "4.49.0",
    "use_cache": False,
    "vocab_size": VOCABULARY,
}
_WINDOW = {"max_window_layers": 28, "rope_scaling": None, "sliding_window": 4096, "use_sliding_window": False}
FIELDS: dict[str, dict[str, Any]] = {
    "llama": _COMMON
    | {"attention_bias": False, "head_dim": 8, "mlp_bias": False, "pretraining_tp": 1, "rope_scaling": None},
    "mistral": _COMMON | {"head_dim": 8, "sliding_window": None},
    "qwen2": _COMMON | _WINDOW,
    "qwen3": _COMMON
    | _WINDOW
    | {"attention_bias": False, "head_dim": 16, "sliding_window": None, "transformers_version": "4.51.0"},
}
LLAMA31_ROPE: dict[str, Any] = {
    "rope_theta": 500000.0,
    "rope_scaling": {
        "factor": 8.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 32,
        "rope_type": "llama3",
    },
}


@dataclass(frozen=True)
class Case:
    """What to write; the defaults are the smallest model that has a plain and a dual-branch layer."""

    family: str = "llama"
    kind: str = "concat"
    method: str = "lerp"
    num_ori_layers: int = 4
    num_exp_layers: int = 2
    factor: float | None = 0.3
    frozen: bool = False
    norm_alpha: float = 0
    fields: dict[str, Any] = field(default_factory=dict)

    @property
    def layout(self) -> list[str]:
        """Of each layer of the expanded model: `plain`, `dual` or `stacked`."""
        layers: list[str] = []
        sites = 0
        for i in range(self.num_ori_layers):
            if (i + 1) % (self.num_ori_layers // self.num_exp_layers):
                layers.append("plain")
                continue
            stacks = self.kind == "stack" or (self.kind == "hybrid" and sites % 2 == 0)
            layers += ["plain", "stacked"] if stacks else ["dual"]
            sites += 1
        return layers

    def layers(self, what: str) -> list[int]:
        """Indices of the layers of one sort."""
        return [i for i, found in enumerate(self.layout) if found == what]

    def plain_config(self, **changes: Any) -> PreTrainedConfig:
        """Transformers' own configuration of a plain model of as many layers."""
        fields = FIELDS[self.family] | {"num_hidden_layers": len(self.layout)} | self.fields | changes
        return AutoConfig.for_model(self.family, **copy.deepcopy(fields))  # it writes into what it is given

    def config_json(self) -> dict[str, Any]:
        """What the authors' code writes as config.json."""
        layout = self.layout
        stack = self.kind == "stack"
        architecture = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}[self.family]
        return (
            FIELDS[self.family]
            | self.fields
            | {
                "architectures": [f"{architecture}ForCausalLM" if stack else "CausalLMExpansion"],
                "model_type": self.family if stack else "causallmexpansion",
                "num_hidden_layers": len(layout),
                "expansion": {
                    "expand_type": self.kind,
                    "expanded_from": "/models/base",
                    "freeze_interpolation_factor": self.frozen,
                    "freeze_ori_layers": True,
                    "freeze_ori_non_layers": True,
                    "freezed_layers": self.layers("plain"),
                    "interpolation_factor": self.factor,
                    "interpolation_loss_alpha": 0,
                    "interpolation_loss_type": "cosine",
                    "interpolation_norm_alpha": self.norm_alpha,
                    "merge_method": self.method,
                    "num_exp_layers": self.num_exp_layers,
                    "num_ori_layers": self.num_ori_layers,
                },
            }
        )

    def interpolator_tensors(self, generator: torch.Generator) -> dict[str, Tensor]:
        """The tensors of one dual-branch layer beside its branches, by the table of the format."""

        def noise(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator)

        found: dict[str, Tensor] = {}
        if self.method in ("lerp", "slerp", "proj", "prog") and self.factor is not None:
            found["interpolation_factor"] = self.factor + 0.1 * noise(1)
        if self.method in ("dlerp", "dlerpin"):
            width = 2 * HIDDEN if self.method == "dlerp" else HIDDEN
            found["interp_weight.fc.weight"] = 0.3 * noise(1, width)
            found["interp_weight.fc.bias"] = (self.factor or 0) + 0.1 * noise(1)
        if self.method == "moe":
            found["gating.gate_network.0.weight"] = noise(2, HIDDEN)
            found["gating.gate_network.0.bias"] = 0.1 * noise(2)
        if self.method in ("proj", "prog"):
            name = {"proj": "linear_proj", "prog": "lateral_connection"}[self.method]
            found[f"{name}.weight"] = torch.eye(HIDDEN) + 0.1 * noise(HIDDEN, HIDDEN)
        if self.norm_alpha == -1:
            for norm in ("input_layernorm", "post_attention_layernorm"):
                found[f"expanded_layer.{norm}.interpolation_factor"] = 0.5 + 0.1 * noise(1)
        return found

    def tensors(self, seed: int = 0) -> dict[str, Tensor]:
        """Random weights under the names of the published format."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            plain = AutoModelForCausalLM.from_config(self.plain_config()).state_dict()
        if self.fields.get("tie_word_embeddings"):
            del plain["lm_head.weight"]
        generator = torch.Generator().manual_seed(seed)
        found: dict[str, Tensor] = {}
        for name, tensor in plain.items():
            if name.endswith(("norm.weight", ".bias")):  # neither ones nor zeros, as in a trained model
                tensor = tensor + 0.1 * torch.randn(tensor.shape, generator=generator)
            head, _, rest = name.removeprefix("model.layers.").partition(".")
            if name.startswith("model.layers.") and self.layout[int(head)] == "dual":
                found[f"model.layers.{head}.pretrained_layer.{rest}"] = tensor
                drift = 0.1 * torch.randn(tensor.shape, generator=generator)
                found[f"model.layers.{head}.expanded_layer.{rest}"] = tensor + drift
            else:
                found[name] = tensor
        for layer in self.layers("dual"):
            for name, tensor in self.interpolator_tensors(generator).items():
                found[f"model.layers.{layer}.{name}"] = tensor
        dtype = getattr(torch, self.config_json()["torch_dtype"])
        return {name: tensor.to(dtype).contiguous() for name, tensor in found.items()}

    def write(self, directory: Path, seed: int = 0) -> Path:
        """Write the checkpoint and return its directory."""
        directory.mkdir(parents=True)
        (directory / "config.json").write_text(json.dumps(self.config_json(), indent=2, sort_keys=True))
        save_file(self.tensors(seed), directory / "model.safetensors", metadata={"format": "pt"})
        return directory
