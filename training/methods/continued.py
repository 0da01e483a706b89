"""Sequential domains: a controlled model learns another skill after its first."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from transformers import AutoModelForCausalLM, PreTrainedModel

from cllm_model.modeling import ControlLLMForCausalLM
from training.methods.method import Method


@dataclass(frozen=True)
class Continued(Method):
    """What the first training left goes on learning: the same layers and interpolators, beside the same frozen base."""

    name: ClassVar[str] = "continued"

    def prepare(self, base: Path, scratch: Path) -> PreTrainedModel:
        """Load the controlled checkpoint; it predicts what it did before, at scale 1."""
        model = AutoModelForCausalLM.from_pretrained(base)
        assert isinstance(model, ControlLLMForCausalLM)
        model.freeze_pretrained()
        return model
