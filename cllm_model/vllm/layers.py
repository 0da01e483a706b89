"""The layers that an expansion adds to a base model, built on vLLM's decoder layers. Maths only.

vLLM keeps a layer's output as two summands, (d, r): `d` is what its last block computed, `r` the residual stream that
it is still to be added to. All layers here take such a pair and return one. At scale 0 they return the pair of the
base model itself, so that every later layer computes what it computes in the base model, bit for bit: adding the
summands up first would round differently. Symbols: T rows of a batch (tokens of all requests), H hidden size.
"""

import torch
from torch import Tensor, nn
from vllm.config import VllmConfig
from vllm.model_executor.models.utils import extract_layer_index

from cllm_model.families import FAMILIES
from cllm_model.interpolators import blend, build_interpolator
from cllm_model.relaxed_norm import relax_norms


class DualBranchLayer(nn.Module):
    """Two decoder layers that read the same input, and the interpolator that blends their outputs.

    Each of the two registers its own attention, so each has its own paged KV cache; both share one block table.

    Args:
        vllm_config: The engine's configuration; its model has a `cllm_model.config.ControlLLMConfig`.
        prefix: Name of the layer in the model, `….layers.{i}`.
    """

    def __init__(self, vllm_config: VllmConfig, prefix: str) -> None:
        super().__init__()
        config = vllm_config.model_config.hf_config
        dual = config.dual
        decoder_layer = FAMILIES[config.base_model_type].vllm_layer
        self.pretrained_layer = decoder_layer(vllm_config, prefix=f"{prefix}.pretrained_layer")
        self.expanded_layer = decoder_layer(vllm_config, prefix=f"{prefix}.expanded_layer")
        factor = dual.interpolation_factor
        relax_norms(self.expanded_layer, config.hidden_size, config.rms_norm_eps, dual.norm_alpha, factor)
        self.interpolator = build_interpolator(dual.merge_method, config.hidden_size, factor)

    def forward(
        self, positions: Tensor, hidden_states: Tensor, residual: Tensor | None, scale: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Run both branches and blend them.

        A linear merge method blends both summands with the same share, which is the blend of the sums.

        Args:
            positions: Position of each row, (T,).
            hidden_states: Layer input, or what to add to the residual to get it, (T, H).
            residual: The other summand of the input, (T, H); None in the first layer.
            scale: Control scale of each row, (T, 1), fp32 whatever the model's type.
        """
        # The branches' fused norms write into their inputs, so the first branch gets copies.
        x = hidden_states.clone() if residual is None else hidden_states + residual
        copy = None if residual is None else residual.clone()
        d0, r0 = self.pretrained_layer(positions, hidden_states.clone(), copy)
        d1, r1 = self.expanded_layer(positions, hidden_states, residual)
        hp, he = d0 + r0, d1 + r1
        weight = self.interpolator.weight(x, hp, he)  # (T, 1) or (1,)
        if self.interpolator.linear:
            share = self.interpolator.applied(weight)
            return blend(d0, d1, share, scale), blend(r0, r1, share, scale)
        is_base = scale == 0
        merged = self.interpolator(hp, he, weight, scale)
        return torch.where(is_base, d0, merged), torch.where(is_base, r0, torch.zeros_like(r0))


def run_stacked(
    layer: nn.Module, positions: Tensor, hidden_states: Tensor, residual: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor]:
    """Run a layer that the base model does not have: its base branch is its input, which scale 0 returns.

    Args:
        layer: A decoder layer of vLLM's.
        positions: Position of each row, (T,).
        hidden_states: What to add to the residual to get the layer's input, (T, H).
        residual: The other summand of the input, (T, H).
        scale: Control scale of each row, (T, 1).
    """
    # The layer's fused norms write into their inputs.
    d1, r1 = layer(positions, hidden_states.clone(), residual.clone())
    return blend(hidden_states, d1, 1.0, scale), blend(residual, r1, 1.0, scale)


def build_layer(vllm_config: VllmConfig, prefix: str) -> nn.Module:
    """Return the layer for one place in the model, told by its index in the prefix."""
    config = vllm_config.model_config.hf_config
    if extract_layer_index(prefix) in config.dual.expanded_layers:
        return DualBranchLayer(vllm_config, prefix)
    return FAMILIES[config.base_model_type].vllm_layer(vllm_config, prefix=prefix)
