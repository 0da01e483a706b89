"""The Control LLM model for Hugging Face transformers: maths only.

Some decoder layers are dual-branch: the frozen pretrained layer and a trainable copy of it read the same input, and an
interpolator blends their outputs (arXiv 2501.10979, section 3). Others are stacked: a trainable copy that stands behind
its source and adds to its output. The control scale turns down what both add to the base model. Knows nothing of weight
names in files, of losses or of vLLM. Shapes: B sequences, T tokens, H hidden size, V vocabulary.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, GenerationMixin
from transformers.cache_utils import Cache
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.utils.generic import can_return_tuple

from cllm_model.config import ControlLLMConfig
from cllm_model.divergence import Branches
from cllm_model.families import FAMILIES
from cllm_model.interpolators import Interpolator, blend, build_interpolator
from cllm_model.loading import CheckedLoading
from cllm_model.published import PublishedConfig
from cllm_model.relaxed_norm import RelaxedNorm, relax_norms
from cllm_model.scale import TRAINED_SCALE, check_scale


class DualBranchLayer(nn.Module):
    """A decoder layer with two branches and the interpolator that blends them.

    Args:
        config: The model's configuration.
        layer_idx: The layer's index; both branches are built with it, for families look up their layer type by it.
        cache_idx: Index of the cache layer that holds the expanded branch's keys and values.
    """

    def __init__(self, config: ControlLLMConfig, layer_idx: int, cache_idx: int) -> None:
        super().__init__()
        decoder_layer = FAMILIES[config.base_model_type].decoder_layer
        dual = config.dual
        self.pretrained_layer = decoder_layer(config, layer_idx)
        self.expanded_layer = decoder_layer(config, layer_idx)
        self.expanded_layer.self_attn.layer_idx = cache_idx
        factor = dual.interpolation_factor
        relax_norms(self.expanded_layer, config.hidden_size, config.rms_norm_eps, dual.norm_alpha, factor)
        self.interpolator = build_interpolator(dual.merge_method, config.hidden_size, factor)

    def forward(self, hidden_states: Tensor, scale: Tensor, **kwargs: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the merged output, both branches', (B, T, H), and the weight; `scale` broadcasts to (B, T, 1)."""
        pretrained = self.pretrained_layer(hidden_states, **kwargs)
        expanded = self.expanded_layer(hidden_states, **kwargs)
        weight = self.interpolator.weight(hidden_states, pretrained, expanded)
        return self.interpolator(pretrained, expanded, weight, scale), pretrained, expanded, weight

    def branches(self, pretrained: Tensor, expanded: Tensor, weight: Tensor) -> Branches:
        """Return what the divergence loss needs of the outputs of `forward`."""
        target = self.interpolator.divergence_target(pretrained)
        return Branches(pretrained, expanded, weight, target, self.interpolator.counted(weight))


class ControlLLMPreTrainedModel(CheckedLoading):
    """What transformers needs to know of any Control LLM model."""

    config: ControlLLMConfig
    config_class = ControlLLMConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["DualBranchLayer", *(family.decoder_layer.__name__ for family in FAMILIES.values())]
    _skip_keys_device_placement = ["past_key_values"]
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, Interpolator | RelaxedNorm):
            module.reset_parameters()


_MASKS: dict[str, Callable[..., Any]] = {
    "full_attention": create_causal_mask,
    "sliding_attention": create_sliding_window_causal_mask,
}
"""Layer type -> the function that makes its attention mask."""


def _layer_types(config: ControlLLMConfig) -> list[str]:
    """Return the type of attention of each layer; a family without layer types has one for all."""
    window = getattr(config, "sliding_window", None)
    default = "full_attention" if window is None else "sliding_attention"
    return getattr(config, "layer_types", None) or [default] * config.num_hidden_layers


class ControlLLMModel(ControlLLMPreTrainedModel):
    """The backbone: embeddings, plain and dual-branch decoder layers, final norm.

    Attributes:
        control_scale: Scale used where a call gives none: a float, or a (B,) tensor with a scale for each sequence.
        keep_branches: Keep what the branches gave in `branches`, with its gradient.
        branches: Layer index -> branches of the last forward pass, if `keep_branches`.
    """

    def __init__(self, config: ControlLLMConfig) -> None:
        super().__init__(config)
        family = FAMILIES[config.base_model_type]
        dual = config.dual
        layers = config.num_hidden_layers
        self.expanded_layers = dual.expanded_layers
        self.stacked_layers = frozenset(dual.stacked_layers)
        self.first_layer = dual.first_layer
        # the expanded branch j of the model keeps its keys and values behind those of all layers
        cache_idx = {layer: layers + j for j, layer in enumerate(self.expanded_layers)}
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, config.pad_token_id)
        self.layers = nn.ModuleList(
            DualBranchLayer(config, i, cache_idx[i]) if i in cache_idx else family.decoder_layer(config, i)
            for i in range(layers)
        )
        self.layer_types = _layer_types(config)
        self.norm = family.norm(config.hidden_size, eps=config.rms_norm_eps)
        self.rotary_emb = family.rotary_embedding(config=config)
        self.control_scale: float | Tensor = TRAINED_SCALE
        self.keep_branches = False
        self.branches: dict[int, Branches] = {}
        self.gradient_checkpointing = False
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        control_scale: float | Tensor | None = None,
        output_hidden_states: bool = False,
        trunk_states: Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Return the hidden states after the final norm, (B, T, H).

        Args:
            input_ids: Tokens, (B, T); or give `inputs_embeds`, (B, T, H).
            attention_mask: 1 where there is a token, (B, T so far).
            position_ids: Positions, (B, T).
            past_key_values: Keys and values of earlier tokens. They belong to the scale they were computed with.
            inputs_embeds: Embedded tokens, (B, T, H).
            use_cache: Return keys and values for the next call.
            control_scale: One scale, or a (B,) tensor; `self.control_scale` by default.
            output_hidden_states: Also return the input of each layer that is run and the final output.
            trunk_states: What enters the lowest layer that the expansion changed, (B, T, H), where it is known already:
                the layers below are not run, and `input_ids` are not looked at.
            kwargs: Passed on to the attention implementation.
        """
        if kwargs.pop("output_attentions", None):
            raise ValueError("output_attentions: not supported; a dual-branch layer has two attention maps")
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training
        start = 0
        if trunk_states is not None:
            if use_cache or past_key_values is not None:
                raise ValueError("trunk_states: the layers below leave no keys and values; use_cache must be False")
            start, inputs_embeds = self.first_layer, trunk_states
        elif (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        elif inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        scale = self._scale(self.control_scale if control_scale is None else control_scale, inputs_embeds)
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        if past_key_values is not None:
            self._add_expanded_layers(past_key_values)
        if position_ids is None:
            seen = past_key_values.get_seq_length() if past_key_values is not None else 0
            position_ids = torch.arange(seen, seen + inputs_embeds.shape[1], device=inputs_embeds.device)[None]

        masks = {
            kind: create(
                config=self.config,
                inputs_embeds=inputs_embeds,
                attention_mask=attention_mask,
                past_key_values=past_key_values,
                position_ids=position_ids,
            )
            for kind, create in _MASKS.items()
            if kind in self.layer_types
        }
        kwargs |= {
            "position_embeddings": self.rotary_emb(inputs_embeds, position_ids=position_ids),
            "position_ids": position_ids,
            "past_key_values": past_key_values,
            "use_cache": use_cache,
        }
        hidden_states = inputs_embeds  # (B, T, H)
        all_hidden_states: list[Tensor] = []
        self.branches = {}
        for i in range(start, len(self.layers)):
            layer = self.layers[i]
            all_hidden_states.append(hidden_states)
            kwargs["attention_mask"] = masks[self.layer_types[i]]
            if isinstance(layer, DualBranchLayer):
                hidden_states, *outputs = layer(hidden_states, scale, **kwargs)
                if self.keep_branches:
                    self.branches[i] = layer.branches(*outputs)
            elif i in self.stacked_layers:
                # its base branch is its input: at scale 0 the layer is not there
                hidden_states = blend(hidden_states, layer(hidden_states, **kwargs), 1.0, scale)
            else:
                hidden_states = layer(hidden_states, **kwargs)
        hidden_states = self.norm(hidden_states)
        return BaseModelOutputWithPast(
            last_hidden_state=hidden_states,
            past_key_values=past_key_values,
            hidden_states=(*all_hidden_states, hidden_states) if output_hidden_states else None,  # type: ignore[arg-type]
        )

    def _scale(self, value: float | Tensor, like: Tensor) -> Tensor:
        """Return the scale as an fp32 tensor that broadcasts to (B, T, 1)."""
        if not isinstance(value, Tensor):
            return torch.full((1, 1, 1), check_scale(value), dtype=torch.float32, device=like.device)
        if value.shape != like.shape[:1]:
            raise ValueError(f"control_scale: shape {tuple(value.shape)} is not the batch's ({like.shape[0]},)")
        return value.to(like.device, torch.float32)[:, None, None]

    def _add_expanded_layers(self, cache: Cache) -> None:
        """Append the cache layers of the expanded branches: transformers sizes caches from the config's layers."""
        offloaded = getattr(cache, "offloading", False)
        if not isinstance(cache, DynamicCache) or offloaded:
            raise ValueError(
                f"past_key_values: {type(cache).__name__}{' (offloaded)' if offloaded else ''} has no room for "
                "the expanded branches; allowed: DynamicCache"
            )
        wanted = self.config.num_hidden_layers + len(self.expanded_layers)
        if len(cache.layers) < wanted:
            template = DynamicCache(config=self.config).layers
            copies = DynamicCache(config=self.config).layers
            cache.layers[len(template) :] = [copies[i] for i in self.expanded_layers]


class ControlLLMForCausalLM(ControlLLMPreTrainedModel, GenerationMixin):
    """The model with its language-modelling head.

    Args:
        config: The model's configuration.
        control_scale: Scale used where a call gives none; 0 is the base model, 1 the model as trained.
    """

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config: ControlLLMConfig, control_scale: float = TRAINED_SCALE) -> None:
        super().__init__(config)
        self.model = ControlLLMModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.control_scale = control_scale
        self.post_init()

    @property
    def control_scale(self) -> float | Tensor:
        """The scale used where a call gives none: a float, or a (B,) tensor."""
        return self.model.control_scale

    @control_scale.setter
    def control_scale(self, value: float | Tensor) -> None:
        self.model.control_scale = value if isinstance(value, Tensor) else check_scale(value)

    def freeze_pretrained(self) -> None:
        """Leave only what an expansion added trainable: expanded and stacked layers, and the interpolators.

        Factors that the configuration freezes stay frozen.
        """
        self.requires_grad_(False)
        frozen = self.config.dual.freeze_factor
        for i, layer in enumerate(self.model.layers):
            if i in self.model.stacked_layers:
                layer.requires_grad_(True)
            if not isinstance(layer, DualBranchLayer):
                continue
            layer.expanded_layer.requires_grad_(True)
            layer.interpolator.requires_grad_(True)
            norms = [module for module in layer.expanded_layer.modules() if isinstance(module, RelaxedNorm)]
            for factor in (layer.interpolator.factor_parameter(), *(norm.interpolation_factor for norm in norms)):
                if factor is not None:
                    factor.requires_grad_(not frozen)

    def freeze_interpolators(self) -> None:
        """Keep the interpolators from training as well."""
        for layer in self.model.layers:
            if isinstance(layer, DualBranchLayer):
                layer.interpolator.requires_grad_(False)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        control_scale: float | Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Return the logits, (B, T, V), and the cross entropy if `labels` are given.

        Args:
            input_ids: Tokens, (B, T).
            attention_mask: 1 where there is a token, (B, T so far).
            position_ids: Positions, (B, T).
            past_key_values: Keys and values of earlier tokens.
            inputs_embeds: Embedded tokens, (B, T, H).
            labels: Tokens to predict, (B, T); -100 is not counted.
            use_cache: Return keys and values for the next call.
            control_scale: One scale, or a (B,) tensor with a scale for each sequence.
            logits_to_keep: Number of last positions to compute logits for, 0 for all; or their indices.
            kwargs: Passed on to the backbone and the loss.
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            control_scale=control_scale,
            **kwargs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, kept, :])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
        )


class CausalLMExpansion(ControlLLMForCausalLM):
    """`ControlLLMForCausalLM` under the published format's architecture name."""

    config: PublishedConfig
    config_class = PublishedConfig
