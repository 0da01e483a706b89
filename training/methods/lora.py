"""Low-rank adapters (LoRA, arXiv 2106.09685), by peft."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, cast

import peft
from transformers import AutoModelForCausalLM, PreTrainedModel

from training.methods.method import Method


@dataclass(frozen=True)
class LoRA(Method):
    """Adapters on all linear maps of every decoder layer; folded into them when training is done.

    Attributes:
        rank: Rank of each adapter.
        alpha: Their scale is `alpha / rank`.
    """

    name: ClassVar[str] = "lora"
    rank: int = 8
    alpha: int = 16

    def prepare(self, base: Path, scratch: Path) -> PreTrainedModel:
        """Load the base and put adapters in."""
        config = peft.LoraConfig(
            r=self.rank, lora_alpha=self.alpha, target_modules="all-linear", task_type=peft.TaskType.CAUSAL_LM
        )
        model = AutoModelForCausalLM.from_pretrained(base)
        return cast(PreTrainedModel, peft.get_peft_model(model, config))

    def finish(self, model: PreTrainedModel) -> PreTrainedModel:
        """Fold the adapters into the weights; a plain model is left."""
        return cast(PreTrainedModel, cast(peft.PeftModel, model).merge_and_unload())
