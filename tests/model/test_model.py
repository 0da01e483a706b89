"""The Hugging Face model: equal to its base where it must be, and `generate` with the stock cache."""

import pytest
import torch
from transformers import AutoModelForCausalLM, StaticCache

from cllm_model import ControlLLMForCausalLM
from cllm_model.expand import expand

PROMPT = torch.tensor([[5, 9, 33, 21, 60, 7], [8, 8, 40, 12, 3, 50]])


def generate(model, prompt=PROMPT, **options):
    options = {"max_new_tokens": 24, "do_sample": False, "eos_token_id": None, "pad_token_id": 0} | options
    return model.generate(prompt, **options)[:, prompt.shape[1] :]


@pytest.fixture
def base(tiny_base):
    return AutoModelForCausalLM.from_pretrained(tiny_base).eval()


@pytest.mark.parametrize("method", ["lerp", "dlerp"])
@pytest.mark.parametrize("layers", [1, 2, 4])
def test_fresh_expansion_equals_its_base(tiny_base, base, tmp_path, method, layers):
    expand(tiny_base, tmp_path / "dual", layers, method, factor=0.3)
    dual = AutoModelForCausalLM.from_pretrained(tmp_path / "dual").eval()
    assert isinstance(dual, ControlLLMForCausalLM)
    with torch.inference_mode():
        torch.testing.assert_close(dual(PROMPT).logits, base(PROMPT).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", ["lerp", "dlerp"])
def test_scale_0_is_the_base_bit_for_bit(trained, base, method):
    model = trained(method)
    with torch.inference_mode():
        wanted = base(PROMPT).logits
        assert torch.equal(model(PROMPT, control_scale=0.0).logits, wanted)
        assert (model(PROMPT).logits - wanted).abs().max() > 0.1
    assert generate(model, control_scale=0.0).tolist() == generate(base).tolist()


def test_bf16_rounds_once_and_keeps_the_base(trained, base):
    model, base = trained().bfloat16(), base.bfloat16()
    with torch.inference_mode():
        assert torch.equal(model(PROMPT, control_scale=0.0).logits, base(PROMPT).logits)
        logits = model(PROMPT, control_scale=0.3).logits
    assert logits.dtype is torch.bfloat16
    assert logits.isfinite().all()


def test_scale_0_ignores_what_the_expanded_branch_holds(trained, base):
    model = trained("lerp")
    for layer in model.model.layers:
        layer.expanded_layer.mlp.down_proj.weight.data.fill_(float("inf"))
    with torch.inference_mode():
        assert torch.equal(model(PROMPT, control_scale=0.0).logits, base(PROMPT).logits)


def test_scale_is_linear_within_a_layer(trained):
    """One dual-branch layer at the end: the hidden states before the norm follow the formula of the dial."""
    model = trained("dlerp", layers=1)
    model.model.norm = torch.nn.Identity()
    with torch.inference_mode():
        at = {s: model.model(PROMPT, control_scale=s).last_hidden_state for s in (0.0, 0.25, 1.0, 1.5)}
    for s in (0.25, 1.5):
        torch.testing.assert_close(at[s], at[0.0] + s * (at[1.0] - at[0.0]), rtol=1e-5, atol=1e-5)


def test_each_sequence_has_its_own_scale(trained):
    model = trained()
    scales = torch.tensor([0.0, 0.7])
    with torch.inference_mode():
        together = model(PROMPT, control_scale=scales).logits
        for row, scale in enumerate(scales.tolist()):
            alone = model(PROMPT[row : row + 1], control_scale=scale).logits[0]
            torch.testing.assert_close(together[row], alone, rtol=0, atol=1e-5)
    tokens = generate(model, control_scale=scales)
    assert tokens[1].tolist() == generate(model, PROMPT[1:], control_scale=0.7)[0].tolist()


def test_scale_of_the_model_and_of_the_call(trained, tmp_path):
    model = trained()
    model.save_pretrained(tmp_path / "saved")
    half = AutoModelForCausalLM.from_pretrained(tmp_path / "saved", control_scale=0.5).eval()
    assert half.control_scale == 0.5
    with torch.inference_mode():
        wanted = model(PROMPT, control_scale=0.5).logits
        assert torch.equal(half(PROMPT).logits, wanted)
        assert not torch.equal(model(PROMPT).logits, wanted)


@pytest.mark.parametrize("layers", [1, 4])  # with 4 of 4, layer 0 is expanded
@pytest.mark.parametrize("method", ["lerp", "dlerp"])
def test_generate_with_cache_equals_without(trained, method, layers):
    model = trained(method, layers)
    assert generate(model).tolist() == generate(model, use_cache=False).tolist()


def test_beam_search_with_cache_equals_without(trained):
    model = trained()
    beams = {"num_beams": 3, "num_return_sequences": 3}
    assert generate(model, **beams).tolist() == generate(model, use_cache=False, **beams).tolist()
    scales = torch.tensor([0.0, 1.0])
    both = generate(model, num_beams=3, control_scale=scales)
    assert both[0].tolist() == generate(model, PROMPT[:1], num_beams=3, control_scale=0.0)[0].tolist()


def test_left_padding_changes_nothing(trained):
    model = trained()
    short = PROMPT[1:, 2:]
    padded = torch.cat([torch.zeros(1, 2, dtype=torch.long), short], dim=1)
    batch = torch.cat([PROMPT[:1], padded])
    mask = (batch != 0).long()
    tokens = generate(model, batch, attention_mask=mask)
    assert tokens[1].tolist() == generate(model, short)[0].tolist()
    assert tokens[0].tolist() == generate(model, PROMPT[:1])[0].tolist()


def test_one_cache_over_several_calls(trained):
    model = trained()
    with torch.inference_mode():
        whole = model(PROMPT).logits
        first = model(PROMPT[:, :4], use_cache=True)
        second = model(PROMPT[:, 4:], past_key_values=first.past_key_values)
    torch.testing.assert_close(torch.cat([first.logits, second.logits], dim=1), whole, rtol=0, atol=1e-5)


def test_only_expanded_layers_and_interpolators_train(trained):
    model = trained(layers=2)
    model.freeze_pretrained()
    trains = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trains
    assert all(".expanded_layer." in name or ".interpolator." in name for name in trains)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert not any(".expanded_layer." in name or ".interpolator." in name for name in frozen)


def test_gradient_checkpointing_keeps_the_gradients(trained):
    model = trained(layers=2).train()
    model.freeze_pretrained()
    model.model.keep_branches = True

    def gradients():
        model.zero_grad()
        loss = model(PROMPT, labels=PROMPT).loss
        loss = loss + sum((b.expanded - b.pretrained).square().mean() for b in model.model.branches.values())
        loss.backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    plain = gradients()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    checkpointed = gradients()
    assert plain.keys() == checkpointed.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("scale", [-0.1, 2.1, float("nan"), float("inf"), 1e-6, "1", True])
def test_bad_scale_is_refused(trained, scale):
    model = trained(layers=1)
    with pytest.raises(ValueError, match="control_scale: .*allowed: a number from 0 to 2"):
        model(PROMPT, control_scale=scale)


def test_scales_of_another_batch_size_are_refused(trained):
    with pytest.raises(ValueError, match=r"control_scale: shape \(3,\)"):
        trained(layers=1)(PROMPT, control_scale=torch.ones(3))


def test_other_caches_are_refused_by_name(trained):
    model = trained(layers=1)
    with pytest.raises(ValueError, match="StaticCache .*allowed: DynamicCache"):
        model(PROMPT, past_key_values=StaticCache(config=model.config, max_cache_len=16))
