"""A Llama with dual-branch layers for vLLM (Control LLM, arXiv 2501.10979, section 3).

Maths only. A dual-branch layer is two of vLLM's decoder layers, `pretrained_layer` and `expanded_layer`, and an
interpolator; each of the two registers its own attention, so each has its own paged KV cache, and both share one block
table. Where the control scales come from is `dial`'s business, and how tensors are named is `cllm_model.names`'.
Symbols: T rows of a batch (tokens of all requests), H hidden size.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from vllm.compilation.decorators import support_torch_compile
from vllm.config import VllmConfig
from vllm.forward_context import get_forward_context
from vllm.model_executor.models.llama import LlamaDecoderLayer, LlamaForCausalLM, LlamaModel
from vllm.model_executor.models.utils import extract_layer_index
from vllm.sequence import IntermediateTensors

from cllm_model.interpolators import blend, build_interpolator
from cllm_model.names import to_module
from cllm_model.vllm.dial import Dial
from cllm_model.vllm.limits import refuse_unsupported


class SingleBranchLayer(LlamaDecoderLayer):
    """A decoder layer that is not expanded: the control scale does not reach it."""

    def forward(  # type: ignore[override]
        self, positions: Tensor, hidden_states: Tensor, residual: Tensor | None, scale: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Run the layer, (T, H) -> (T, H)."""
        return super().forward(positions, hidden_states, residual)


class DualBranchLayer(nn.Module):
    """Two decoder layers that read the same input, and the interpolator that blends their outputs.

    Args:
        vllm_config: The engine's configuration; its model has a `cllm_model.config.ControlLLMConfig`.
        prefix: Name of the layer in the model, `….layers.{i}`.
    """

    def __init__(self, vllm_config: VllmConfig, prefix: str) -> None:
        super().__init__()
        config = vllm_config.model_config.hf_config
        dual = config.dual
        self.pretrained_layer = LlamaDecoderLayer(vllm_config, prefix=f"{prefix}.pretrained_layer")
        self.expanded_layer = LlamaDecoderLayer(vllm_config, prefix=f"{prefix}.expanded_layer")
        self.interpolator = build_interpolator(dual.merge_method, config.hidden_size, dual.interpolation_factor)

    def forward(
        self, positions: Tensor, hidden_states: Tensor, residual: Tensor | None, scale: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Run both branches and blend them.

        vLLM keeps a layer's output as two summands, (d, r). Both are blended with the same share, which is the blend
        of the sums, and at scale 0 both are the pretrained branch's own: then every later layer computes what it
        computes in the base model, bit for bit.

        Args:
            positions: Position of each row, (T,).
            hidden_states: Layer input, or what to add to the residual to get it, (T, H).
            residual: The other summand of the input, (T, H); None in the first layer.
            scale: Control scale of each row, (T,).
        """
        # The branches' fused norms write into their inputs, so the first branch gets copies.
        x = hidden_states.clone() if residual is None else hidden_states + residual
        copy = None if residual is None else residual.clone()
        d0, r0 = self.pretrained_layer(positions, hidden_states.clone(), copy)
        d1, r1 = self.expanded_layer(positions, hidden_states, residual)
        weight = self.interpolator.weight(x, d0 + r0, d1 + r1)  # (T, 1) or (1,)
        scale = scale.unsqueeze(-1)  # (T, 1), fp32 whatever the model's type
        return blend(d0, d1, weight, scale), blend(r0, r1, weight, scale)


def build_layer(vllm_config: VllmConfig, prefix: str) -> nn.Module:
    """Return the layer for one place in the model, told by its index in the prefix."""
    dual = extract_layer_index(prefix) in vllm_config.model_config.hf_config.dual.expanded_layers
    return DualBranchLayer(vllm_config, prefix) if dual else SingleBranchLayer(vllm_config, prefix)


@support_torch_compile(
    dynamic_arg_dims={"input_ids": 0, "positions": 0, "intermediate_tensors": 0, "inputs_embeds": 0, "scale": 0}
)
class ControlLLMModel(LlamaModel):
    """vLLM's Llama decoder with `build_layer`'s layers."""

    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        intermediate_tensors: IntermediateTensors | None,
        inputs_embeds: Tensor | None,
        scale: Tensor,
    ) -> Tensor | IntermediateTensors | tuple[Tensor, list[Tensor]]:
        """Run the decoder with the control scale of each row, (T,)."""
        return super().forward(input_ids, positions, intermediate_tensors, inputs_embeds, scale=scale)


class ControlLLMForCausalLM(LlamaForCausalLM):
    """A Control LLM checkpoint of the Llama family, in our format or the published one."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        refuse_unsupported(vllm_config)
        super().__init__(vllm_config=vllm_config, prefix=prefix, layer_type=build_layer)  # type: ignore[arg-type]
        self.dial = Dial.of(vllm_config)

    def _init_model(
        self, vllm_config: VllmConfig, prefix: str = "", layer_type: type[nn.Module] = SingleBranchLayer
    ) -> LlamaModel:
        return ControlLLMModel(vllm_config=vllm_config, prefix=prefix, layer_type=layer_type)

    def forward(
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        intermediate_tensors: IntermediateTensors | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor | IntermediateTensors:
        """Run a batch in which each request has its own control scale."""
        metadata = get_forward_context().attn_metadata
        starts = None  # a dummy run has no requests
        if isinstance(metadata, dict):
            starts = next(iter(metadata.values())).query_start_loc  # type: ignore[attr-defined]
        scale = self.dial.rows(starts, positions.shape[-1])
        return self.model(input_ids, positions, intermediate_tensors, inputs_embeds, scale)

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        """Load the tensors of a checkpoint under their published names."""
        return super().load_weights((to_module(name), tensor) for name, tensor in weights)
