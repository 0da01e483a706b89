"""The Hugging Face model: equal to its base where it must be, and `generate` with the stock cache."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, DynamicCache, EncoderDecoderCache, LlamaForCausalLM, StaticCache

from cllm_model import ControlLLMForCausalLM
from cllm_model.expand import expand
from cllm_model.interpolators import MERGE_METHODS
from cllm_model.modeling import DualBranchLayer

PROMPT = torch.tensor([[5, 9, 33, 21, 60, 7], [8, 8, 40, 12, 3, 50]])


def generate(model, prompt=PROMPT, **options):
    options = {"max_new_tokens": 24, "do_sample": False, "eos_token_id": None, "pad_token_id": 0} | options
    return model.generate(prompt, **options)[:, prompt.shape[1] :]


@pytest.fixture
def base(tiny_base):
    return AutoModelForCausalLM.from_pretrained(tiny_base).eval()


@pytest.fixture
def tied_base(base, tmp_path):
    config = base.config
    config.tie_word_embeddings = True
    LlamaForCausalLM(config).save_pretrained(tmp_path / "tied")
    return tmp_path / "tied"


EVERY = [pytest.param("lerp", "stack", id="stack")] + [
    pytest.param(method, kind, id=f"{kind}-{method}") for kind in ("concat", "hybrid") for method in MERGE_METHODS
]
every = pytest.mark.parametrize(("method", "kind"), EVERY)


@every
@pytest.mark.parametrize("layers", [2, 4, [0, 1]])
def test_fresh_expansion_equals_its_base(tiny_base, base, tmp_path, method, kind, layers):
    """Up to fp32 rounding of the blend: 1.2e-6 at most, measured, for logits of up to 3.6."""
    expand(tiny_base, tmp_path / "fresh", layers, method, factor=0.3, kind=kind)
    fresh = AutoModelForCausalLM.from_pretrained(tmp_path / "fresh").eval()
    assert isinstance(fresh, ControlLLMForCausalLM)
    with torch.inference_mode():
        torch.testing.assert_close(fresh(PROMPT).logits, base(PROMPT).logits, rtol=0, atol=3e-6)


@pytest.mark.parametrize(
    ("factor", "norm_alpha", "equal"), [(0.0, -1, True), (-1.0, -1, True), (0.5, -1, False), (0.0, 0.2, False)]
)
def test_fresh_relaxed_norms(tiny_base, base, tmp_path, factor, norm_alpha, equal):
    """A share of the input is let through: the one expansion that starts elsewhere than its base, unless it is 0."""
    expand(tiny_base, tmp_path / "fresh", 2, "lerp", factor=factor, norm_alpha=norm_alpha)
    fresh = AutoModelForCausalLM.from_pretrained(tmp_path / "fresh").eval()
    with torch.inference_mode():
        difference = (fresh(PROMPT).logits - base(PROMPT).logits).abs().max().item()
    assert difference < 1e-5 if equal else difference > 0.1


@every
def test_scale_0_is_the_base_bit_for_bit(trained, base, method, kind):
    model = trained(method, kind=kind)
    with torch.inference_mode():
        wanted = base(PROMPT).logits
        assert torch.equal(model(PROMPT, control_scale=0.0).logits, wanted)
        assert (model(PROMPT).logits - wanted).abs().max() > 0.1
    assert generate(model, control_scale=0.0).tolist() == generate(base).tolist()


@every
def test_scale_0_ignores_what_was_added(trained, base, method, kind):
    model = trained(method, kind=kind)
    for name, parameter in model.named_parameters():
        layer = int(name.split(".")[2]) if ".layers." in name else None
        if "expanded_layer.mlp.down_proj" in name or (layer in model.model.stacked_layers and "down_proj" in name):
            parameter.data.fill_(float("inf"))
    with torch.inference_mode():
        assert model(PROMPT, control_scale=0.5).logits.isnan().any()
        assert torch.equal(model(PROMPT, control_scale=0.0).logits, base(PROMPT).logits)


def test_bf16_rounds_once_and_keeps_the_base(trained, base):
    model, base = trained().bfloat16(), base.bfloat16()
    with torch.inference_mode():
        assert torch.equal(model(PROMPT, control_scale=0.0).logits, base(PROMPT).logits)
        logits = model(PROMPT, control_scale=0.3).logits
    assert logits.dtype is torch.bfloat16
    assert logits.isfinite().all()


@pytest.mark.parametrize(("method", "kind"), [case for case in EVERY if "hybrid" not in case.id])
def test_scale_is_linear_within_a_layer(trained, method, kind):
    """One expanded layer at the end: the hidden states before the norm follow the formula of the dial."""
    model = trained(method, layers=1, kind=kind)
    model.model.norm = torch.nn.Identity()
    with torch.inference_mode():
        at = {s: model.model(PROMPT, control_scale=s).last_hidden_state for s in (0.0, 0.25, 1.0, 1.5)}
    for s in (0.25, 1.5):
        torch.testing.assert_close(at[s], at[0.0] + s * (at[1.0] - at[0.0]), rtol=1e-5, atol=1e-5)


@every
def test_each_sequence_has_its_own_scale(trained, method, kind):
    model = trained(method, kind=kind)
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


@every
def test_generate_with_cache_equals_without(trained, method, kind):
    model = trained(method, layers=4, kind=kind)  # of 4: layer 0 too
    first = model.model.layers[0] if kind == "concat" else model.model.layers[1]
    assert isinstance(first, DualBranchLayer) == (kind == "concat")
    assert generate(model).tolist() == generate(model, use_cache=False).tolist()


@pytest.mark.parametrize(("method", "kind"), [("dlerp", "concat"), ("slerp", "hybrid"), ("lerp", "stack")])
def test_beam_search_with_cache_equals_without(trained, method, kind):
    model = trained(method, kind=kind)
    beams = {"num_beams": 3, "num_return_sequences": 3}
    assert generate(model, **beams).tolist() == generate(model, use_cache=False, **beams).tolist()
    scales = torch.tensor([0.0, 1.0])
    both = generate(model, num_beams=3, control_scale=scales)
    assert both[0].tolist() == generate(model, PROMPT[:1], num_beams=3, control_scale=0.0)[0].tolist()
    assert both[1].tolist() == generate(model, PROMPT[1:], num_beams=3, control_scale=1.0)[0].tolist()


@every
def test_left_padding_changes_nothing(trained, method, kind):
    model = trained(method, kind=kind)
    short = PROMPT[1:, 2:]
    padded = torch.cat([torch.zeros(1, 2, dtype=torch.long), short], dim=1)
    batch = torch.cat([PROMPT[:1], padded])
    mask = (batch != 0).long()
    tokens = generate(model, batch, attention_mask=mask)
    assert tokens[1].tolist() == generate(model, short)[0].tolist()
    assert tokens[0].tolist() == generate(model, PROMPT[:1])[0].tolist()


def test_embeddings_stay_tied(tied_base, trained, tmp_path):
    model = trained(base=tied_base)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    model.save_pretrained(tmp_path / "saved")
    assert "lm_head.weight" not in load_file(tmp_path / "saved" / "model.safetensors")
    reread = AutoModelForCausalLM.from_pretrained(tmp_path / "saved").eval()
    assert reread.lm_head.weight is reread.model.embed_tokens.weight
    with torch.inference_mode():
        assert torch.equal(reread(PROMPT).logits, model(PROMPT).logits)
    assert generate(model).tolist() == generate(model, use_cache=False).tolist()


def test_one_cache_over_several_calls(trained):
    model = trained()
    with torch.inference_mode():
        whole = model(PROMPT).logits
        first = model(PROMPT[:, :4], use_cache=True)
        second = model(PROMPT[:, 4:], past_key_values=first.past_key_values)
    torch.testing.assert_close(torch.cat([first.logits, second.logits], dim=1), whole, rtol=0, atol=1e-5)


FROZEN = [
    pytest.param(*case.values, frozen, id=f"{case.id}{'-frozen' * frozen}") for case in EVERY for frozen in (0, 1)
]


@pytest.mark.parametrize(("method", "kind", "freeze_factor"), FROZEN[:1] + FROZEN[2:])  # a stack has no factor
def test_what_trains(trained, method, kind, freeze_factor):
    """What the expansion added, by name; a frozen factor is `factor`, or the bias of a gate."""
    model = trained(method, kind=kind, freeze_factor=bool(freeze_factor), norm_alpha=-1 if kind == "concat" else 0)
    stacked = tuple(f"model.layers.{i}." for i in model.config.dual.stacked_layers)
    added = {
        name
        for name, _ in model.named_parameters()
        if ".expanded_layer." in name or ".interpolator." in name or name.startswith(stacked)
    }
    factors = {name for name in added if name.endswith(("factor", ".fc.bias", ".gate.bias"))}
    assert bool(factors) == (kind != "stack")
    model.freeze_pretrained()
    trains = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trains == (added - factors if freeze_factor else added)


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


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda config: StaticCache(config=config, max_cache_len=16), "StaticCache"),
        (lambda config: DynamicCache(config=config, offloading=True), r"DynamicCache \(offloaded\)"),
        (lambda _: EncoderDecoderCache(DynamicCache(), DynamicCache()), "EncoderDecoderCache"),
    ],
)
def test_other_caches_are_refused_by_name(trained, make, named):
    model = trained(layers=1)
    with pytest.raises(ValueError, match=f"past_key_values: {named} .*allowed: DynamicCache"):
        model(PROMPT, past_key_values=make(model.config))


@pytest.mark.parametrize(
    ("implementation", "named"),
    [("static", "StaticCache"), ("offloaded", "offloaded"), ("quantized", "QuantizedCache|quanto|optimum")],
)
def test_caches_that_generate_would_make_are_refused(trained, implementation, named):
    with pytest.raises((ValueError, ImportError), match=named):
        generate(trained(layers=1), cache_implementation=implementation)
