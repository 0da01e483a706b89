"""The architecture once more, written out without any of our own code: a loop over the layers of two plain models.

One transformers model of the family holds the pretrained branch (and the plain and stacked layers), another one the
expanded branch. The loop runs their layers, merges by the published formulas, and turns the dial by its definition.
Attention masks are made by hand, and are checked against the plain model's own forward in the tests.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from tests.model.published_files import Case


class RelaxedByHand(nn.Module):
    """Share `w` of the input, and the rest from transformers' own norm."""

    def __init__(self, norm: nn.Module, alpha: float, factor: Tensor | None) -> None:
        super().__init__()
        self.norm = norm
        self.share = alpha if factor is None else (2 * torch.sigmoid(factor) - 1).clamp(0, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.share * x + (1 - self.share) * self.norm(x)


def merge(method: str, own: dict[str, Tensor], x: Tensor, hp: Tensor, he: Tensor) -> Tensor:
    """The merged output of one dual-branch layer, by the formula of each method."""
    t = torch.sigmoid(own["interpolation_factor"]) if "interpolation_factor" in own else torch.ones(1)
    if method in ("lerp", "proj"):
        return (1 - t) * hp + t * he
    if method == "prog":
        return (1 - t) * (hp @ own["lateral_connection.weight"].T) + t * he
    if method == "slerp":
        cosine = (hp * he).sum(-1) / (hp.norm(dim=-1) * he.norm(dim=-1))
        angle = torch.acos(cosine.clamp(-1, 1))[..., None]
        sine = torch.sqrt(1 - angle.cos() ** 2 + 1e-8).clamp(min=1e-6)
        arc = torch.sin((1 - t) * angle) / sine * hp + torch.sin(t * angle) / sine * he
        return torch.where(angle < 1e-4, (1 - t) * hp + t * he, arc)
    if method in ("dlerp", "dlerpin"):
        features = torch.cat([hp, he], -1) if method == "dlerp" else x
        w = torch.sigmoid(features @ own["interp_weight.fc.weight"].T + own["interp_weight.fc.bias"])
        return (1 - w) * hp + w * he
    assert method == "moe"
    chances = torch.softmax(x @ own["gating.gate_network.0.weight"].T + own["gating.gate_network.0.bias"], dim=-1)
    return torch.where(chances.argmax(-1, keepdim=True) == 1, he, hp)


class Reference:
    """A published checkpoint, computed in fp32."""

    def __init__(self, case: Case, tensors: dict[str, Tensor]) -> None:
        self.case = case
        tensors = {name: tensor.float() for name, tensor in tensors.items()}
        self.own: dict[int, dict[str, Tensor]] = {layer: {} for layer in case.layers("dual")}
        pretrained: dict[str, Tensor] = {}
        expanded: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            if ".expanded_layer." in name and not name.endswith("interpolation_factor"):
                expanded[name.replace(".expanded_layer.", ".")] = tensor
            elif ".pretrained_layer." in name or not any(
                name.startswith(f"model.layers.{layer}.") for layer in self.own
            ):
                pretrained[name.replace(".pretrained_layer.", ".")] = tensor
            else:
                layer, _, rest = name.removeprefix("model.layers.").partition(".")
                self.own[int(layer)][rest] = tensor
        pretrained.setdefault("lm_head.weight", pretrained["model.embed_tokens.weight"])
        self.base, self.copy = self._plain(pretrained), self._plain(pretrained | expanded)
        for layer, own in self.own.items():
            if case.norm_alpha:
                for norm in ("input_layernorm", "post_attention_layernorm"):
                    copy = self.copy.model.layers[layer]
                    factor = own.get(f"expanded_layer.{norm}.interpolation_factor")
                    setattr(copy, norm, RelaxedByHand(getattr(copy, norm), case.norm_alpha, factor))

    def _plain(self, tensors: dict[str, Tensor]) -> Any:
        model = AutoModelForCausalLM.from_config(self.case.plain_config(torch_dtype="float32"))
        model.load_state_dict(tensors)
        return model.eval()

    @torch.inference_mode()
    def logits(self, ids: Tensor, scale: float | Tensor = 1.0) -> Tensor:
        """Logits of unpadded tokens (B, T) at one scale, or at one for each sequence."""
        s = torch.as_tensor(scale, dtype=torch.float32).reshape(-1, 1, 1)
        model = self.base.model
        x = model.embed_tokens(ids)
        positions = torch.arange(ids.shape[1])[None]
        angles = model.rotary_emb(x, positions)
        for i, sort in enumerate(self.case.layout):
            call = {
                "attention_mask": self._mask(i, ids.shape[1]),
                "position_embeddings": angles,
                "position_ids": positions,
            }
            hp = model.layers[i](x, **call)
            if sort == "plain":
                x = hp
            elif sort == "stacked":
                x = x + s * (hp - x)
            else:
                he = self.copy.model.layers[i](x, **call)
                x = hp + s * (merge(self.case.method, self.own[i], x, hp, he) - hp)
        return self.base.lm_head(model.norm(x))

    def _mask(self, layer: int, length: int) -> Tensor:
        query, key = torch.arange(length)[:, None], torch.arange(length)[None]
        allowed = key <= query
        config = self.base.config
        window = getattr(config, "sliding_window", None)
        if window is not None and (getattr(config, "layer_types", None) or ["sliding_attention"] * (layer + 1))[
            layer
        ].startswith("sliding"):
            allowed &= query - key < window
        return torch.zeros(length, length).masked_fill(~allowed, torch.finfo(torch.float32).min)[None, None]
