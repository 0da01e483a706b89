"""An expanded model that was made to differ from its base, as training would."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from cllm_model import ControlLLMForCausalLM
from cllm_model.expand import expand


@pytest.fixture
def trained(tiny_base: Path, tmp_path: Path) -> Callable[..., ControlLLMForCausalLM]:
    """Returns a function (method, layers, `expand`'s options) -> model of which all that trains was perturbed."""

    def build(
        method: str = "dlerp", layers: int | Sequence[int] = 4, base: Path = tiny_base, **options: Any
    ) -> ControlLLMForCausalLM:
        expand(base, tmp_path / "expanded", layers, method, **options)
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "expanded").eval()
        model.freeze_pretrained()
        generator = torch.Generator().manual_seed(1)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
        return model.requires_grad_(False)

    return build
