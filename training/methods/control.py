"""Control LLM: copies of some layers learn, beside or behind their frozen sources (arXiv 2501.10979)."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from transformers import PreTrainedModel

from cllm_model.expand import expand
from cllm_model.modeling import ControlLLMForCausalLM
from training.methods.method import Method
from training.recipe import Expansion


@dataclass(frozen=True)
class Control(Method):
    """Expanded layers and interpolators train; with an expansion of kind `stack`, LLaMA-Pro (arXiv 2401.02415)."""

    name: ClassVar[str] = "control"
    expansion: Expansion = field(default_factory=Expansion)

    def prepare(self, base: Path, scratch: Path) -> PreTrainedModel:
        """Expand the base."""
        chosen = self.expansion
        sites = chosen.layers if chosen.at is None else chosen.at
        assert sites is not None
        if not (scratch / "expanded").exists():  # by an attempt that was killed, or by another process of this one
            expand(
                base,
                scratch / "expanded",
                sites,
                chosen.method,
                chosen.initial_factor,
                chosen.kind,
                chosen.freeze_factor,
                chosen.norm_alpha,
            )
        model = ControlLLMForCausalLM.from_pretrained(scratch / "expanded")
        model.freeze_pretrained()
        return model
