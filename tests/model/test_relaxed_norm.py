"""The relaxed norm against transformers' own RMS norm."""

import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from cllm_model.relaxed_norm import DYNAMIC, RelaxedNorm, relax_norms

HIDDEN, EPS = 16, 1e-5
X = torch.randn(3, 5, HIDDEN, generator=torch.Generator().manual_seed(0)) * 3
GAIN = 1 + torch.rand(HIDDEN, generator=torch.Generator().manual_seed(1))


def relaxed(alpha: float, factor: float = 0.0, dtype: torch.dtype = torch.float32) -> RelaxedNorm:
    norm = RelaxedNorm(HIDDEN, EPS, alpha, factor)
    norm.weight.data.copy_(GAIN)
    return norm.to(dtype)


def plain(dtype: torch.dtype = torch.float32) -> LlamaRMSNorm:
    norm = LlamaRMSNorm(HIDDEN, EPS)
    norm.weight.data.copy_(GAIN)
    return norm.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("norm", [lambda d: relaxed(0.0, dtype=d), lambda d: relaxed(DYNAMIC, 0.0, d)])
def test_a_share_of_0_is_the_plain_norm_bit_for_bit(norm, dtype):
    x = X.to(dtype)
    given = norm(dtype)(x)
    assert given.dtype is dtype
    assert torch.equal(given, plain(dtype)(x))


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_a_fixed_share(alpha):
    torch.testing.assert_close(relaxed(alpha)(X), alpha * X + (1 - alpha) * plain()(X), rtol=1e-6, atol=1e-6)
    assert [name for name, _ in relaxed(alpha).named_parameters()] == ["weight"]


@pytest.mark.parametrize(("factor", "share"), [(0.5, 0.2449187), (3.0, 0.9051483), (-0.5, 0.0), (40.0, 1.0)])
def test_a_learned_share(factor, share):
    """``2 * sigmoid(factor) - 1``, cut off at 0; the shares were computed by hand."""
    norm = relaxed(DYNAMIC, factor)
    torch.testing.assert_close(norm(X), share * X + (1 - share) * plain()(X), rtol=1e-5, atol=1e-6)
    norm(X).sum().backward()
    assert norm.interpolation_factor is not None
    gradient = norm.interpolation_factor.grad
    assert gradient is not None
    assert gradient.isfinite().all()
    assert bool(gradient.any()) == (0 < share < 1)


def test_with_a_residual_it_norms_the_sum_and_returns_it():
    """As vLLM calls norms."""
    residual = X.flip(0)
    given, total = relaxed(0.3)(X, residual)
    assert torch.equal(total, X + residual)
    assert torch.equal(given, relaxed(0.3)(X + residual))


def test_only_the_two_norms_of_a_layer_are_relaxed():
    layer = torch.nn.Module()
    layer.input_layernorm, layer.post_attention_layernorm, layer.q_norm = plain(), plain(), plain()
    relax_norms(layer, HIDDEN, EPS, 0, 0.0)
    assert all(isinstance(child, LlamaRMSNorm) for child in layer.children())
    relax_norms(layer, HIDDEN, EPS, 0.2, 0.0)
    kinds = {name: type(child) for name, child in layer.named_children()}
    assert kinds == {
        "input_layernorm": RelaxedNorm,
        "post_attention_layernorm": RelaxedNorm,
        "q_norm": LlamaRMSNorm,
    }
