"""The Control LLM model for vLLM (arXiv 2501.10979, section 3), in which some layers are dual-branch, others stacked.

Maths only; see `cllm_model.vllm.layers` for the first two. vLLM's Llama backbone, which is embedding, layers and final
norm, is that of all base families; their layers differ. Where the control scales come from is `dial`'s business, and
how tensors are named is `cllm_model.names`'. Symbols: T rows of a batch (tokens of all requests), H hidden size.
"""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from vllm.compilation.decorators import support_torch_compile
from vllm.config import VllmConfig
from vllm.distributed import get_pp_group
from vllm.forward_context import get_forward_context
from vllm.model_executor.layers.logits_processor import LogitsProcessor
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.model_executor.models.interfaces import SupportsPP, SupportsQuant
from vllm.model_executor.models.llama import LlamaModel
from vllm.model_executor.models.utils import AutoWeightsLoader, PPMissingLayer, maybe_prefix
from vllm.platforms import current_platform
from vllm.sequence import IntermediateTensors

from cllm_model.names import to_module
from cllm_model.vllm.dial import Dial
from cllm_model.vllm.layers import DualBranchLayer, build_layer, run_stacked
from cllm_model.vllm.limits import refuse_unsupported


@support_torch_compile(
    dynamic_arg_dims={"input_ids": 0, "positions": 0, "intermediate_tensors": 0, "inputs_embeds": 0, "scale": 0}
)
class ControlLLMModel(LlamaModel):
    """The backbone, or one pipeline stage of it: embedding, layers, final norm."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix, layer_type=build_layer)  # type: ignore[arg-type]
        self.stacked_layers = frozenset(self.config.dual.stacked_layers)

    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        intermediate_tensors: IntermediateTensors | None,
        inputs_embeds: Tensor | None,
        scale: Tensor,
    ) -> Tensor | IntermediateTensors:
        """Run the stage with the control scale of each row, (T,); return what the next stage or the head reads."""
        residual: Tensor | None = None
        if not get_pp_group().is_first_rank:
            assert intermediate_tensors is not None
            hidden_states, residual = intermediate_tensors["hidden_states"], intermediate_tensors["residual"]
        elif inputs_embeds is not None:
            hidden_states = inputs_embeds
        else:
            assert input_ids is not None
            hidden_states = self.embed_input_ids(input_ids)
        scale = scale.unsqueeze(-1)  # (T, 1)
        for index in range(self.start_layer, self.end_layer):
            layer = self.layers[index]
            if isinstance(layer, DualBranchLayer):
                hidden_states, residual = layer(positions, hidden_states, residual, scale)
            elif index in self.stacked_layers:
                assert residual is not None  # a stacked layer stands behind its source
                hidden_states, residual = run_stacked(layer, positions, hidden_states, residual, scale)
            else:
                hidden_states, residual = layer(positions, hidden_states, residual)
        assert residual is not None
        if not get_pp_group().is_last_rank:
            return IntermediateTensors({"hidden_states": hidden_states, "residual": residual})
        hidden_states, _ = self.norm(hidden_states, residual)
        return hidden_states


class ControlLLMForCausalLM(nn.Module, SupportsPP, SupportsQuant):
    """A Control LLM checkpoint of any base family, in our format or the published one."""

    packed_modules_mapping = {"qkv_proj": ["q_proj", "k_proj", "v_proj"], "gate_up_proj": ["gate_proj", "up_proj"]}

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        refuse_unsupported(vllm_config)
        super().__init__()
        if current_platform.is_cpu():
            # Inductor (torch 2.13) fuses loops of the two branches, which read the same input, although one of them
            # also reads what a kernel in between has yet to write: wrong answers. So on a CPU it may fuse none.
            vllm_config.compilation_config.inductor_compile_config["max_fusion_size"] = 1
        self.config = config = vllm_config.model_config.hf_config
        self.model = ControlLLMModel(vllm_config=vllm_config, prefix=maybe_prefix(prefix, "model"))
        self.make_empty_intermediate_tensors = self.model.make_empty_intermediate_tensors
        self.lm_head: nn.Module = PPMissingLayer()
        if get_pp_group().is_last_rank:
            self.lm_head = ParallelLMHead(
                config.vocab_size,
                config.hidden_size,
                quant_config=vllm_config.quant_config,
                prefix=maybe_prefix(prefix, "lm_head"),
            )
            if config.tie_word_embeddings:
                self.lm_head = self.lm_head.tie_weights(self.model.embed_tokens)
        self.logits_processor = LogitsProcessor(config.vocab_size)
        self.dial = Dial.of(vllm_config)

    def embed_input_ids(self, input_ids: Tensor) -> Tensor:
        """Return the embedded tokens, (T,) -> (T, H)."""
        return self.model.embed_input_ids(input_ids)

    def forward(
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        intermediate_tensors: IntermediateTensors | None = None,
        inputs_embeds: Tensor | None = None,
        scale: Tensor | None = None,
    ) -> Tensor | IntermediateTensors:
        """Run a batch in which each request has its own control scale.

        Args:
            input_ids: Tokens of all requests, (T,); None if they come embedded.
            positions: Position of each row, (T,).
            intermediate_tensors: What the pipeline stage before this one returned; None in the first.
            inputs_embeds: Embedded tokens, (T, H).
            scale: Control scale of each row, (T,); taken from the engine's dial by default.
        """
        if scale is None:
            metadata = get_forward_context().attn_metadata
            starts = None  # a dummy run has no requests
            if isinstance(metadata, dict):
                starts = next(iter(metadata.values())).query_start_loc  # type: ignore[attr-defined]
            scale = self.dial.rows(starts, positions.shape[-1])
        return self.model(input_ids, positions, intermediate_tensors, inputs_embeds, scale)

    @staticmethod
    def get_model_state_cls() -> type[Any]:
        """Return what keeps the control scales under vLLM's V2 model runner."""
        from cllm_model.vllm.model_state import ControlModelState

        return ControlModelState

    def compute_logits(self, hidden_states: Tensor) -> Tensor | None:
        """Return the logits, (T, H) -> (T, V); None on ranks that do not gather them."""
        return self.logits_processor(self.lm_head, hidden_states)

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """Load the tensors of a checkpoint under their published names."""
        tied = self.config.tie_word_embeddings  # some writers repeat the tied tensor
        return AutoWeightsLoader(self).load_weights(
            (to_module(name), tensor) for name, tensor in weights if not (tied and name == "lm_head.weight")
        )
