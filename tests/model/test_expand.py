"""Expansions of a base: where layers go, what is copied, and that nothing is placed but exactly as asked."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from cllm_model import CausalLMExpansion, checkpoint
from cllm_model.expand import expand, extract
from cllm_model.fresh import difference_to_base
from cllm_model.interpolators import MERGE_METHODS
from tests.model.published_files import Case

IDS = torch.arange(1, 25)[None]


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return load_file(directory / "model.safetensors")


def logits(directory: Path) -> torch.Tensor:
    with torch.inference_mode():
        return AutoModelForCausalLM.from_pretrained(directory)(IDS).logits


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(params=["llama", "mistral", "qwen2", "qwen3"])
def base(request, tmp_path) -> Path:
    """A plain checkpoint of each family, with biases that are not 0."""
    config = Case(family=request.param, num_exp_layers=4).plain_config()
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    for name, parameter in model.named_parameters():
        if name.endswith(".bias"):
            torch.nn.init.normal_(parameter)
    model.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.mark.parametrize("method", MERGE_METHODS)
@pytest.mark.parametrize("kind", ["concat", "hybrid"])
def test_fresh_is_the_base_by_every_method(tiny_base, method, kind, tmp_path):
    """Prog's lateral connection starts as the identity here; the authors' noise is what differs."""
    expand(tiny_base, tmp_path / "out", 2, method, factor=0.4, kind=kind)
    torch.testing.assert_close(logits(tmp_path / "out"), logits(tiny_base), rtol=0, atol=2e-5)
    assert difference_to_base(tmp_path / "out") < 2e-5


@pytest.mark.parametrize("kind", ["concat", "stack", "hybrid"])
def test_fresh_is_the_base_in_every_family_and_is_extracted_again(base, kind, tmp_path):
    expand(base, tmp_path / "out", [0, 3], "lerp", kind=kind)
    torch.testing.assert_close(logits(tmp_path / "out"), logits(base), rtol=0, atol=2e-5)
    extract(tmp_path / "out", tmp_path / "again")
    assert same(weights(tmp_path / "again"), weights(base))
    assert json.loads((tmp_path / "again/config.json").read_text()) == json.loads((base / "config.json").read_text())


def test_relaxed_norms_differ_from_the_base_from_the_start(tiny_base, tmp_path):
    expand(tiny_base, tmp_path / "out", 2, "lerp", norm_alpha=0.3)
    wanted = (logits(tmp_path / "out") - logits(tiny_base)).abs().max().item()
    assert wanted > 0.01
    assert difference_to_base(tmp_path / "out") > 0.01


def test_a_list_of_layers_and_what_is_copied_where(tiny_base, tmp_path):
    config = expand(tiny_base, tmp_path / "out", [0, 1, 2, 3], "lerp", kind="hybrid", factor=None)
    # base layer 0 stacked, 1 doubled, 2 stacked, 3 doubled
    assert (config.dual.stacked_layers, config.dual.expanded_layers) == ((1, 4), (2, 5))
    base, ours = weights(tiny_base), weights(tmp_path / "out")
    rest = "mlp.up_proj.weight"
    pairs = {
        f"0.{rest}": 0, f"1.{rest}": 0, f"2.pretrained_layer.{rest}": 1, f"2.expanded_layer.{rest}": 1,
        f"3.{rest}": 2, f"4.{rest}": 2, f"5.pretrained_layer.{rest}": 3, f"5.expanded_layer.{rest}": 3,
    }  # fmt: skip
    for name, layer in pairs.items():
        assert torch.equal(ours[f"model.layers.{name}"], base[f"model.layers.{layer}.{rest}"])
    for zeroed in ("self_attn.o_proj.weight", "mlp.down_proj.weight"):
        assert ours[f"model.layers.4.{zeroed}"].count_nonzero() == 0
        assert ours[f"model.layers.3.{zeroed}"].count_nonzero() > 0
    assert not any("interpolation_factor" in name for name in ours)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": 3}, "layers: 3 does not divide the base's 4 layers; allowed: 1, 2, 4"),
        ({"layers": 0}, "layers: 0 does not divide"),
        ({"layers": [1, 4]}, "layers: 4 is out of range; the base has layers 0 to 3"),
        ({"layers": [-1]}, "layers: -1 is out of range"),
        ({"layers": [3, 1]}, r"layers: \[3, 1\] is not an ascending list"),
        ({"layers": []}, r"layers: \[\] is not an ascending list"),
        ({"layers": [0, 1, 2], "kind": "hybrid"}, "layers: 3 is odd"),
        ({"kind": "sideways"}, "kind: 'sideways' is not one of concat, stack, hybrid"),
        ({"method": "max"}, "merge_method: 'max' is not one of lerp, slerp, dlerp, dlerpin, moe, proj, prog"),
        ({"method": "dlerp", "factor": None}, "interpolation_factor: null is not allowed with merge_method 'dlerp'"),
        ({"norm_alpha": 1.5}, "norm_alpha: 1.5 is not allowed"),
        ({"kind": "stack", "norm_alpha": 0.5}, "norm_alpha: not allowed with expansion 'stack'"),
        ({"kind": "stack", "freeze_factor": True}, "freeze_factor: not allowed with expansion 'stack'"),
        ({"family": "qwen2"}, "the family is 'llama', and not 'qwen2'"),
    ],
)
def test_what_cannot_be_placed_or_means_nothing_is_refused(tiny_base, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        expand(tiny_base, tmp_path / "out", **{"layers": 2, "method": "lerp"} | options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("model_type", [None, "my_own_llama"])
def test_a_family_that_the_base_does_not_tell_is_named(tiny_base, model_type, tmp_path):
    config = json.loads((tiny_base / "config.json").read_text()) | {"model_type": model_type}
    (tmp_path / "base").mkdir()
    (tmp_path / "base/config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    (tmp_path / "base/model.safetensors").write_bytes((tiny_base / "model.safetensors").read_bytes())
    with pytest.raises(ValueError, match=f"model_type: {model_type!r} is not one of llama, mistral, qwen2, qwen3"):
        expand(tmp_path / "base", tmp_path / "out", 2, "lerp")
    expand(tmp_path / "base", tmp_path / "out", 2, "lerp", family="llama")
    torch.testing.assert_close(logits(tmp_path / "out"), logits(tiny_base), rtol=0, atol=2e-5)
    with pytest.raises(checkpoint.CheckpointError, match="missing: .*q_norm"):
        expand(tmp_path / "base", tmp_path / "other", 2, "lerp", family="qwen3")


def test_what_is_expanded_already_is_refused(golden, tmp_path):
    with pytest.raises(ValueError, match="model_type: 'causallmexpansion' is not one of llama"):
        expand(golden / "llama_concat_lerp", tmp_path / "out", 2, "lerp")
    with pytest.raises(ValueError, match="a stacked expansion, not a base; merge it back first"):
        expand(golden / "llama_stack", tmp_path / "out", 2, "lerp")


def test_bf16_stays_bf16(tmp_path):
    torch.manual_seed(0)
    config = Case(num_exp_layers=4).plain_config()
    AutoModelForCausalLM.from_config(config).bfloat16().save_pretrained(tmp_path / "base")
    expand(tmp_path / "base", tmp_path / "out", 2, "dlerpin", norm_alpha=-1)
    assert {tensor.dtype for tensor in weights(tmp_path / "out").values()} == {torch.bfloat16}


def test_a_tied_table_that_is_stored_twice_is_written_once(tmp_path):
    config = Case(num_exp_layers=4, fields={"tie_word_embeddings": True}).plain_config()
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "base")
    tensors = weights(tmp_path / "base")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, tmp_path / "base/model.safetensors", metadata={"format": "pt"})
    expand(tmp_path / "base", tmp_path / "out", 2, "lerp")
    assert "lm_head.weight" not in weights(tmp_path / "out")
    torch.testing.assert_close(logits(tmp_path / "out"), logits(tmp_path / "base"), rtol=0, atol=2e-5)


def test_published_checkpoints_are_extracted_too(golden, tmp_path):
    for name in ("llama_concat_lerp", "llama_stack", "llama_hybrid_lerp", "qwen2_concat_lerp"):
        extract(golden / name, tmp_path / name)
        assert same(weights(tmp_path / name), weights(golden / f"base_{name.split('_')[0]}"))


def test_the_dial_turns_a_published_stack(golden):
    """Half of what the stacked layers add is half of their update, layer by layer."""
    model = CausalLMExpansion.from_pretrained(golden / "llama_stack", control_scale=0.5).eval()
    plain = AutoModelForCausalLM.from_pretrained(golden / "llama_stack").eval()
    expansion = json.loads((golden / "llama_stack/config.json").read_text())["expansion"]
    stacked = set(range(12)) - set(expansion["freezed_layers"])

    def halve(module, args, output):
        return args[0] + 0.5 * (output - args[0])

    for layer in stacked:
        plain.model.layers[layer].register_forward_hook(halve)
    with torch.inference_mode():
        torch.testing.assert_close(model(IDS).logits, plain(IDS).logits, rtol=0, atol=1e-5)
        base = AutoModelForCausalLM.from_pretrained(golden / "base_llama")(IDS).logits
        torch.testing.assert_close(model(IDS, control_scale=0.0).logits, base, rtol=0, atol=1e-5)


def test_a_published_stack_with_a_dial_is_saved_with_one(golden, tmp_path):
    model = CausalLMExpansion.from_pretrained(golden / "llama_stack")
    model.save_pretrained(tmp_path / "saved")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved", control_scale=0.0)
    assert type(again) is CausalLMExpansion
    assert again.config.dual == model.config.dual
    assert model.config.model_type == again.config.model_type == "causallmexpansion"
    with torch.inference_mode():
        base = AutoModelForCausalLM.from_pretrained(golden / "base_llama")(IDS).logits
        torch.testing.assert_close(again(IDS).logits, base, rtol=0, atol=1e-5)
