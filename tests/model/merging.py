"""Checkpoints merged by hand, by the formulas of the paper and its authors' code, and how two checkpoints compare."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests.model.published_files import Case

IDS = torch.arange(1, 25)[None]


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return load_file(directory / "model.safetensors")


def config(directory: Path) -> dict:
    return json.loads((directory / "config.json").read_text())


def logits(directory: Path, ids: torch.Tensor = IDS) -> torch.Tensor:
    with torch.inference_mode():
        return AutoModelForCausalLM.from_pretrained(directory)(ids).logits


def assert_same(ours: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor], atol: float = 1e-6) -> None:
    assert ours.keys() == wanted.keys()
    for name in wanted:
        assert ours[name].dtype == wanted[name].dtype
        torch.testing.assert_close(ours[name], wanted[name], rtol=0, atol=atol, msg=lambda m, n=name: f"{n}: {m}")


def linear(p: torch.Tensor, e: torch.Tensor, w: float) -> torch.Tensor:
    return p + w * (e - p)


def spherical(p: torch.Tensor, e: torch.Tensor, w: float) -> torch.Tensor:
    """Row by row in Python floats, by the formula in the authors' paper and code."""
    rows_p, rows_e = p.double().reshape(-1, p.shape[-1]), e.double().reshape(-1, e.shape[-1])
    rows = []
    for a, b in zip(rows_p, rows_e, strict=True):
        cosine = (a @ b / (a.norm() * b.norm())).clamp(-1 + 1e-6, 1 - 1e-6)
        angle = torch.acos(cosine)
        rows.append((torch.sin((1 - w) * angle) * a + torch.sin(w * angle) * b) / (torch.sin(angle) + 1e-6))
    return torch.stack(rows).reshape(p.shape).float()


FOLDS = {"lerp": linear, "proj": linear, "slerp": spherical, "dlerp": spherical, "dlerpin": spherical}


def factor(case: Case, tensors: dict[str, torch.Tensor], layer: int) -> float:
    """Weight that a dual-branch layer's factor stands for."""
    if case.method in ("dlerp", "dlerpin"):
        return torch.sigmoid(tensors[f"model.layers.{layer}.interp_weight.fc.bias"]).item()
    if case.factor is None:
        return 1.0
    return torch.sigmoid(tensors[f"model.layers.{layer}.interpolation_factor"]).item()


def merged_by_hand(case: Case, tensors: dict[str, torch.Tensor], layer_weights: dict[int, float]) -> dict:
    """The plain model's tensors, layer by layer of the layout."""
    merged = {name: tensor for name, tensor in tensors.items() if not name.startswith("model.layers.")}
    fold, base = FOLDS[case.method], -1
    for layer, what in enumerate(case.layout):
        prefix = f"model.layers.{layer}."
        own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        if what != "stacked":
            base += 1
        place = f"model.layers.{base}."
        if what == "plain":
            merged |= {place + name: tensor for name, tensor in own.items()}
        elif what == "stacked":
            merged |= {place + name: fold(merged[place + name], own[name], layer_weights[layer]) for name in own}
        else:
            for name, pretrained in own.items():
                if name.startswith("pretrained_layer."):
                    rest = name.removeprefix("pretrained_layer.")
                    merged[place + rest] = fold(pretrained, own[f"expanded_layer.{rest}"], layer_weights[layer])
    return merged
