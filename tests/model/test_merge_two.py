"""Two models of one base in one: merged back, or with their branches kept; against the authors' and by the formulas."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from cllm_model import merge as merge_module
from cllm_model.checkpoint import CheckpointError
from cllm_model.convert import convert
from cllm_model.merge import merge
from cllm_model.merge_two import merge_two
from tests.model.merging import assert_same, config, factor, logits, merged_by_hand, spherical, weights
from tests.model.published_files import Case

LERP_A, LERP_B = "llama_concat_lerp", "llama_concat_lerp_b"


def test_two_models_merged_back_are_the_authors(golden, tmp_path):
    merge_two(golden / LERP_A, golden / LERP_B, tmp_path / "out")
    assert_same(weights(tmp_path / "out"), weights(golden / "merged2_lerp_back"))
    expected = load_file(golden / "merged2_lerp_back/expected.safetensors")
    torch.testing.assert_close(logits(tmp_path / "out", expected["input_ids"]), expected["logits"], rtol=0, atol=1e-5)


def test_kept_branches_are_the_authors_and_the_factor_is_the_mean_weights(golden, tmp_path):
    """The authors keep the first model's factor, with which a later merge back is not the one of both models."""
    merge_two(golden / LERP_A, golden / LERP_B, tmp_path / "out", keep_branches=True)
    ours, theirs = weights(tmp_path / "out"), weights(golden / "merged2_lerp_keep")
    a, b = weights(golden / LERP_A), weights(golden / LERP_B)
    assert ours.keys() == theirs.keys()
    for name in theirs:
        if name.endswith("interpolation_factor"):
            mean = (a[name].sigmoid() + b[name].sigmoid()) / 2
            torch.testing.assert_close(ours[name].sigmoid(), mean, rtol=0, atol=1e-6)
        else:
            torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=1e-6)
    assert config(tmp_path / "out")["model_type"] == "causallmexpansion"


def two_models(case: Case, directory: Path, seed: int = 1, **changes) -> tuple[Path, Path]:
    """Two checkpoints of one base whose added tensors differ."""
    a = case.write(directory / "a")
    b = replace(case, **changes).write(directory / "b")
    generator = torch.Generator().manual_seed(seed)
    tensors = weights(a)
    stacked = tuple(f"model.layers.{layer}." for layer in case.layers("stacked"))
    for name, tensor in tensors.items():
        if "expanded_layer." in name or "interp" in name or (stacked and name.startswith(stacked)):
            tensors[name] = tensor + 0.2 * torch.randn(tensor.shape, generator=generator).to(tensor.dtype)
    save_file(tensors, b / "model.safetensors", metadata={"format": "pt"})
    return a, b


@pytest.mark.parametrize("method", ["slerp", "dlerp", "dlerpin"])
def test_two_models_on_the_arc_are_merged_one_after_the_other(method, tmp_path):
    case = Case(method=method)
    a, b = two_models(case, tmp_path)
    merge_two(a, b, tmp_path / "out")
    first, second = weights(a), weights(b)
    wanted = merged_by_hand(case, first, {layer: factor(case, first, layer) for layer in case.layers("dual")})
    for layer in case.layers("dual"):
        prefix = f"model.layers.{layer}."
        for name in list(wanted):
            if name.startswith(prefix):
                expanded = second[f"{prefix}expanded_layer.{name.removeprefix(prefix)}"]
                wanted[name] = spherical(wanted[name], expanded, factor(case, second, layer))
    assert_same(weights(tmp_path / "out"), wanted, atol=2e-6)


@pytest.mark.parametrize(
    "case",
    [
        Case(method="lerp"),
        Case(method="proj"),
        Case(method="lerp", factor=None),
        Case(kind="hybrid", method="lerp", num_exp_layers=4),
        Case(kind="stack", method="lerp"),
        Case(method="lerp", norm_alpha=-1),
    ],
    ids=lambda case: f"{case.kind}-{case.method}-{case.factor}-{case.norm_alpha}",
)
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(factors=st.tuples(st.floats(-6, 6), st.floats(-6, 6)), seed=st.integers(0, 2**16))
def test_kept_and_then_merged_back_is_merged_back(tmp_path_factory, case, factors, seed):
    directory = tmp_path_factory.mktemp("two")
    if case.factor is not None:
        case = replace(case, factor=factors[0])
    changes = {} if case.factor is None else {"factor": factors[1]}
    a, b = two_models(case, directory, seed, **changes)
    tensors = weights(b)
    for name in tensors:
        if name.endswith(".interpolation_factor") and "layer." not in name.removeprefix("model.layers."):
            tensors[name] = torch.tensor([factors[1]])
    save_file(tensors, b / "model.safetensors", metadata={"format": "pt"})
    merge_two(a, b, directory / "back")
    merge_two(a, b, directory / "kept", keep_branches=True)
    merge(directory / "kept", directory / "kept-back")
    assert_same(weights(directory / "kept-back"), weights(directory / "back"), atol=2e-6)


def test_gates_are_averaged_and_the_branch_is_shared_by_weight(tmp_path):
    case = Case(method="dlerp")
    a, b = two_models(case, tmp_path)
    merge_two(a, b, tmp_path / "out", keep_branches=True)
    ours, first, second = weights(tmp_path / "out"), weights(a), weights(b)
    for layer in case.layers("dual"):
        for part in ("weight", "bias"):
            name = f"model.layers.{layer}.interp_weight.fc.{part}"
            torch.testing.assert_close(ours[name], (first[name] + second[name]) / 2)
        ta, tb = factor(case, first, layer), factor(case, second, layer)
        name = f"model.layers.{layer}.expanded_layer.mlp.up_proj.weight"
        wanted = spherical(first[name], second[name], tb / (ta + tb))
        torch.testing.assert_close(ours[name], wanted, rtol=0, atol=2e-6)


def test_the_two_may_have_two_formats(golden, tmp_path):
    convert(golden / LERP_B, tmp_path / "b", "control-llm")
    merge_two(golden / LERP_A, tmp_path / "b", tmp_path / "back")
    assert_same(weights(tmp_path / "back"), weights(golden / "merged2_lerp_back"))
    merge_two(tmp_path / "b", golden / LERP_A, tmp_path / "kept", keep_branches=True)
    assert config(tmp_path / "kept")["model_type"] == "control_llm"
    merge(tmp_path / "kept", tmp_path / "kept-back")
    assert_same(weights(tmp_path / "kept-back"), weights(golden / "merged2_lerp_back"))


def test_a_kept_stack_stays_a_published_stack(tmp_path):
    a, b = two_models(Case(kind="stack"), tmp_path)
    merge_two(a, b, tmp_path / "out", keep_branches=True)
    written = config(tmp_path / "out")
    assert written["model_type"] == "llama"
    assert written["expansion"]["num_exp_layers"] == 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_exp_layers": 4}, r"expansion.expanded_layers: \(1, 3\) in one checkpoint and \(0, 1, 2, 3\) in the"),
        ({"method": "slerp"}, "expansion.merge_method: 'lerp' in one checkpoint and 'slerp' in the other"),
        ({"kind": "hybrid"}, "expansion.expanded_layers|expansion.kind"),
        ({"factor": None}, "expansion.interpolation_factor: 0.3 in one checkpoint and None in the other"),
        ({"frozen": True}, "expansion.freeze_factor: False in one checkpoint and True in the other"),
        ({"norm_alpha": 0.5}, r"expansion.norm_alpha: 0(\.0)? in one checkpoint and 0.5 in the other"),
        ({"family": "qwen3"}, "base_model_type: 'llama' and 'qwen3'"),
        ({"fields": {"rope_theta": 500.0}}, "rope_parameters: .* in one checkpoint and .* in the other"),
        ({"fields": {"torch_dtype": "bfloat16"}}, "is BF16, and F32 in the other"),
    ],
)
def test_two_different_expansions_are_refused(changes, said, tmp_path, monkeypatch):
    a, b = Case().write(tmp_path / "a"), replace(Case(), **changes).write(tmp_path / "b")
    monkeypatch.setattr(merge_module.checkpoint, "write_tensors", None)
    with pytest.raises(ValueError, match=said):
        merge_two(a, b, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_two_bases_are_refused_by_the_tensors_name(golden, tmp_path):
    a, b = two_models(Case(), tmp_path)
    tensors = weights(b)
    tensors["model.layers.3.pretrained_layer.mlp.up_proj.weight"][0, 0] += 1e-6
    save_file(tensors, b / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"model.layers.3.pretrained_layer.mlp.up_proj.weight differs"):
        merge_two(a, b, tmp_path / "out")
    assert not (tmp_path / "out").exists()
