"""A dual-branch model that was made to differ from its base, as training would."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from cllm_model import ControlLLMForCausalLM
from cllm_model.expand import expand


@pytest.fixture
def trained(tiny_base: Path, tmp_path: Path) -> Callable[..., ControlLLMForCausalLM]:
    """Returns a function (method, layers) -> model whose expanded branches and interpolators were perturbed."""

    def build(method: str = "dlerp", layers: int = 4) -> ControlLLMForCausalLM:
        expand(tiny_base, tmp_path / "dual", layers, method)
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "dual").eval()
        model.freeze_pretrained()
        generator = torch.Generator().manual_seed(1)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
        return model.requires_grad_(False)

    return build
