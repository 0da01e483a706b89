"""Fine-tuning of the base's own parameters: all of them, those of some layers, or half of every layer's."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from transformers import AutoModelForCausalLM, PreTrainedModel

from cllm_model.names import split_layer
from cllm_model.placement import choose_sites
from training.methods.method import Method

_HALVES: tuple[tuple[str, ...], tuple[str, ...]] = (
    ("self_attn.q_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.down_proj", "input_layernorm"),
    ("self_attn.k_proj", "self_attn.o_proj", "mlp.up_proj", "post_attention_layernorm"),
)
"""What trains in layers of even index, and in those of odd index."""


@dataclass(frozen=True)
class Full(Method):
    """Every parameter trains."""

    name: ClassVar[str] = "full"

    def prepare(self, base: Path, scratch: Path) -> PreTrainedModel:
        """Load the base."""
        model = AutoModelForCausalLM.from_pretrained(base)
        return model.requires_grad_(True)


@dataclass(frozen=True)
class Partial(Method):
    """All of some decoder layers trains, and nothing else: the comparison for an expansion of the same layers.

    Attributes:
        layers: Their indices, or the number of evenly spaced ones.
    """

    name: ClassVar[str] = "partial"
    layers: int | tuple[int, ...] = 4

    def prepare(self, base: Path, scratch: Path) -> PreTrainedModel:
        """Load the base and freeze the rest."""
        model = AutoModelForCausalLM.from_pretrained(base)
        given = self.layers if isinstance(self.layers, int) else list(self.layers)
        sites = choose_sites(given, model.config.num_hidden_layers)
        return _train_only(model, {f"{layer}." for layer in sites})


@dataclass(frozen=True)
class Half(Method):
    """Half fine-tuning (HFT, arXiv 2404.18466): of each layer's attention, MLP and norms about half trains.

    The choice alternates from layer to layer, so that of the three MLP matrices half train in the end. The paper draws
    it at random and again at every stage; one stage is what a run is here. Embeddings, head and final norm are frozen.
    """

    name: ClassVar[str] = "hft"

    def prepare(self, base: Path, scratch: Path) -> PreTrainedModel:
        """Load the base and freeze the other half."""
        model = AutoModelForCausalLM.from_pretrained(base)
        chosen = {f"{i}.{part}." for i in range(model.config.num_hidden_layers) for part in _HALVES[i % 2]}
        return _train_only(model, chosen)


def _train_only(model: PreTrainedModel, chosen: Collection[str]) -> PreTrainedModel:
    """Freeze all parameters but those of decoder layers whose name starts, at the layer's index, with one of these."""
    for name, parameter in model.named_parameters():
        layer, rest = split_layer(name)
        parameter.requires_grad_(layer is not None and f"{layer}.{rest}".startswith(tuple(chosen)))
    return model
