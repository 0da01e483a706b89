"""Parity with the paper authors' own code, on every checkpoint that it wrote: loaded, run, trained one step, saved."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from cllm_model import CausalLMExpansion
from cllm_model.divergence import Divergence
from cllm_model.expand import expand
from cllm_model.names import to_checkpoint
from cllm_model.published import from_published

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
INDEX: dict[str, dict[str, Any]] = {
    case["case"]: case for case in json.loads((GOLDEN / "index.json").read_text())["cases"]
}
EXPANDED = [name for name, case in INDEX.items() if case["kind"] == "expanded"]
STACK = "llama_stack"
BRANCHED = [name for name in EXPANDED if name != STACK]


def computed(name: str) -> dict[str, Any]:
    return json.loads((GOLDEN / name / "expected.json").read_text())


def tensors(name: str) -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / name / "expected.safetensors")


def those_with(key: str) -> list[str]:
    """Cases for which the authors' code recorded something that it did not record for all."""
    found = []
    for name in INDEX:
        with safe_open(GOLDEN / name / "expected.safetensors", framework="pt") as file:
            if key in {*file.keys(), *computed(name)}:
                found.append(name)
    return found


def load(name: str, **options: Any) -> Any:
    return AutoModelForCausalLM.from_pretrained(GOLDEN / name, **options).eval()


def load_dial(name: str) -> CausalLMExpansion:
    """A case with the dial, the stacked one too: its config.json says that it is a plain model."""
    return CausalLMExpansion.from_pretrained(GOLDEN / name).eval() if name == STACK else load(name)


def forward(model: PreTrainedModel, ids: torch.Tensor, **options: Any) -> Any:
    with torch.inference_mode():
        return model(ids, **options)


def train_one_step(model: Any, ids: torch.Tensor, step: str) -> torch.Tensor:
    """The authors' training step: cross entropy and the divergence of all tokens, averaged over the layers."""
    kind, alpha = step.split("|alpha=")
    divergence = Divergence(kind, float(alpha))
    model.freeze_pretrained()
    model.model.keep_branches = True
    loss = model(ids, labels=ids).loss
    terms = [divergence(branches) for branches in model.model.branches.values()]
    loss = loss + sum(terms) / len(terms)
    loss.backward()
    return loss


def test_no_case_is_left_out():
    assert set(INDEX) == {path.name for path in GOLDEN.iterdir() if path.is_dir()}
    assert (len(INDEX), len(EXPANDED)) == (21, 13)
    assert those_with("padded_logits") == those_with("hidden_states")
    assert len(those_with("hidden_states")) == 10
    assert set(those_with("train_step")) == set(BRANCHED)


@pytest.mark.parametrize("name", INDEX)
def test_logits(name):
    expected = tensors(name)
    logits = forward(load(name), expected["input_ids"]).logits
    torch.testing.assert_close(logits, expected["logits"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", INDEX)
def test_cross_entropy(name):
    ids = tensors(name)["input_ids"]
    assert forward(load(name), ids, labels=ids).loss.item() == pytest.approx(computed(name)["ce_loss"], abs=1e-6)


@pytest.mark.parametrize("name", those_with("hidden_states"))
def test_hidden_states(name):
    expected = tensors(name)
    hidden = forward(load(name), expected["input_ids"], output_hidden_states=True).hidden_states
    torch.testing.assert_close(torch.stack(hidden), expected["hidden_states"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", those_with("padded_logits"))
def test_padded_logits(name):
    expected = tensors(name)
    mask = expected["padded_attention_mask"]
    logits = forward(load(name), expected["padded_input_ids"], attention_mask=mask).logits
    real = mask.bool()
    assert not real.all()
    torch.testing.assert_close(logits[real], expected["padded_logits"][real], rtol=0, atol=1e-5)


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("name", INDEX)
def test_greedy_tokens(name, use_cache):
    expected = tensors(name)
    prompt, wanted = expected["input_ids"], expected["generated"]
    length = wanted.shape[1] - prompt.shape[1]
    generated = load(name).generate(
        prompt, max_new_tokens=length, do_sample=False, use_cache=use_cache, eos_token_id=None, pad_token_id=0
    )
    assert generated.tolist() == wanted.tolist()


@pytest.mark.parametrize("loss", ["cosine|alpha=-1", "cosine|alpha=1.0", "mse|alpha=-1", "mse|alpha=1.0"])
@pytest.mark.parametrize("name", BRANCHED)
def test_divergence(name, loss):
    """The authors average over every token of every dual-branch layer."""
    wanted = computed(name)["divergence_losses_train"][loss]
    model = load(name)
    model.model.keep_branches = True
    forward(model, tensors(name)["input_ids"])
    kind, alpha = loss.split("|alpha=")
    divergence = Divergence(kind, float(alpha))
    losses = {str(layer): divergence(branches).item() for layer, branches in model.model.branches.items()}
    assert losses == pytest.approx(wanted["per_layer"], abs=1e-6)
    assert sum(losses.values()) / len(losses) == pytest.approx(wanted["additional_loss"], abs=1e-6)


@pytest.mark.parametrize("name", BRANCHED)
def test_mean_interpolation_weights(name):
    wanted = computed(name)["get_interp_weights"]["avg_interp_weight"]
    model = load(name)
    model.model.keep_branches = True
    forward(model, tensors(name)["input_ids"])
    means = {str(layer): branches.weight.mean().item() for layer, branches in model.model.branches.items()}
    assert means == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("step", ["mse|alpha=1.0", "cosine|alpha=-1"])
@pytest.mark.parametrize("name", BRANCHED)
def test_training_step(name, step):
    """The loss, and the norm of every gradient; what the authors' step gives none must get none here."""
    wanted = computed(name)["train_step"][step]
    model = load(name)
    loss = train_one_step(model, tensors(name)["input_ids"], step)
    assert loss.item() == pytest.approx(wanted["total_loss"], abs=1e-5)
    norms = {
        to_checkpoint(tensor): None if parameter.grad is None else parameter.grad.norm().item()
        for tensor, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    assert norms.keys() == wanted["grad_norm"].keys()
    assert {tensor for tensor, norm in norms.items() if norm is None} == {
        tensor for tensor, norm in wanted["grad_norm"].items() if norm is None
    }
    for tensor, norm in wanted["grad_norm"].items():
        assert norm is None or norms[tensor] == pytest.approx(norm, rel=1e-4, abs=1e-7), tensor


@pytest.mark.parametrize(("step", "has_gradient"), [("mse|alpha=1.0", False), ("cosine|alpha=-1", True)])
def test_the_gate_of_a_choice_learns_from_its_own_weight_only(step, has_gradient):
    model = load("llama_concat_moe_f02")
    train_one_step(model, tensors("llama_concat_moe_f02")["input_ids"], step)
    gates = [parameter for name, parameter in model.named_parameters() if ".gate." in name]
    assert len(gates) == 8
    assert all((gate.grad is not None) == has_gradient for gate in gates)


@pytest.mark.parametrize("name", INDEX)
def test_saved_again_it_is_the_same_file(name, tmp_path):
    model = load(name)
    model.save_pretrained(tmp_path)
    ours, theirs = load_file(tmp_path / "model.safetensors"), load_file(GOLDEN / name / "model.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[tensor], theirs[tensor]) for tensor in theirs)
    reread = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(reread) is type(model)
    ids = tensors(name)["input_ids"]
    assert torch.equal(forward(reread.eval(), ids).logits, forward(model, ids).logits)


@pytest.mark.parametrize("name", BRANCHED)
def test_family_and_placement(name):
    model = load(name)
    assert type(model) is CausalLMExpansion
    assert model.config.base_model_type == INDEX[name]["family"]
    expected, dual = computed(name), model.config.dual
    new = set(range(model.config.num_hidden_layers)) - set(expected["freezed_layers"])
    assert set(dual.stacked_layers) == set(expected["stacked_new_layers"])
    assert set(dual.expanded_layers) == new - set(expected["stacked_new_layers"])
    merging = {i for i, layer in enumerate(expected["layer_classes"]) if layer.startswith("MergeLayer")}
    assert set(dual.expanded_layers) == merging
    wanted = INDEX[name]["kwargs"]
    assert (dual.kind, dual.merge_method, dual.norm_alpha) == (
        wanted["expand_type"],
        wanted["merge_method"],
        wanted["interpolation_norm_alpha"],
    )
    assert (dual.interpolation_factor, dual.freeze_factor) == (wanted["interpolation_factor"], False)


@pytest.mark.parametrize("name", EXPANDED)
def test_what_trains(name):
    model = load_dial(name)
    model.freeze_pretrained()
    trains = {to_checkpoint(tensor) for tensor, parameter in model.named_parameters() if parameter.requires_grad}
    assert trains == set(computed(name)["perturbed"])


@pytest.mark.parametrize("name", EXPANDED)
def test_fresh_expansion_has_the_authors_initial_values(name, tmp_path):
    """Placement and factors are theirs; here a fresh gate is zero, or random for a choice, and a map is identity."""
    case, expected = INDEX[name], computed(name)
    wanted = case["kwargs"]
    config = expand(
        GOLDEN / case["base"],
        tmp_path / "fresh",
        wanted["num_exp_layers"],
        wanted["merge_method"],
        factor=wanted["interpolation_factor"],
        kind=wanted["expand_type"],
        norm_alpha=wanted["interpolation_norm_alpha"],
    )
    assert list(config.dual.stacked_layers) == expected["stacked_new_layers"]
    assert config.dual == from_published(
        json.loads((GOLDEN / name / "config.json").read_text())["expansion"], config.num_hidden_layers
    )
    fresh = load_file(tmp_path / "fresh" / "model.safetensors")
    shapes = {tensor: list(value.shape) for tensor, value in fresh.items()}
    assert shapes == {tensor: shape for tensor, (_, shape) in expected["tensors"].items()}
    for tensor, first in expected["fresh_params_init"].items():
        start = fresh[tensor].flatten()[: len(first)].tolist()
        if tensor.endswith(("lateral_connection.weight", "linear_proj.weight")):
            assert torch.equal(fresh[tensor], torch.eye(config.hidden_size))
            assert start == pytest.approx(first, abs=0.05)
        elif tensor.endswith("fc.weight"):
            assert not fresh[tensor].any()
        elif tensor.endswith("gate_network.0.weight"):
            bound = 1 / math.sqrt(config.hidden_size)  # of torch's linear layer, which both start with
            assert bound / 2 < fresh[tensor].abs().max() <= bound
            assert max(map(abs, first)) <= bound
        else:
            assert start == pytest.approx(first, abs=1e-7)
    base = load_file(GOLDEN / case["base"] / "model.safetensors")
    assert torch.equal(fresh["model.embed_tokens.weight"], base["model.embed_tokens.weight"])


@pytest.mark.parametrize("name", EXPANDED)
def test_scale_0_is_the_base_and_scale_1_the_model_as_trained(name):
    expected, base = tensors(name), load(INDEX[name]["base"])
    model, ids = load_dial(name), expected["input_ids"]
    assert torch.equal(forward(model, ids, control_scale=0.0).logits, forward(base, ids).logits)
    torch.testing.assert_close(forward(model, ids, control_scale=1.0).logits, expected["logits"], rtol=0, atol=1e-5)
    assert (expected["logits"] - forward(base, ids).logits).abs().max() > 0.1


def test_a_published_stack_is_a_plain_model_unless_the_dial_is_asked_for():
    plain, dial = load(STACK), load_dial(STACK)
    assert type(plain).__name__ == "LlamaForCausalLM"
    assert type(dial) is CausalLMExpansion
    assert dial.config.dual.stacked_layers == tuple(computed(STACK)["stacked_new_layers"]) == (2, 5, 8, 11)
