"""Merging back: against the authors' results and against the formulas written out; what has no meaning is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from cllm_model import merge as merge_module
from cllm_model.checkpoint import CheckpointError
from cllm_model.expand import expand
from cllm_model.merge import merge, scores
from cllm_model.merge_two import merge_two
from tests.model.published_files import Case

MERGED = [
    "merged_llama_concat_lerp",
    "merged_llama_concat_slerp_f04",
    "merged_llama_concat_dlerp",
    "merged_llama_stack",
]
LERP_A, LERP_B = "llama_concat_lerp", "llama_concat_lerp_b"
IDS = torch.arange(1, 25)[None]


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return load_file(directory / "model.safetensors")


def config(directory: Path) -> dict:
    return json.loads((directory / "config.json").read_text())


def logits(directory: Path, ids: torch.Tensor = IDS) -> torch.Tensor:
    with torch.inference_mode():
        return AutoModelForCausalLM.from_pretrained(directory)(ids).logits


def assert_same(ours: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor], atol: float = 1e-6) -> None:
    assert ours.keys() == wanted.keys()
    for name in wanted:
        assert ours[name].dtype == wanted[name].dtype
        torch.testing.assert_close(ours[name], wanted[name], rtol=0, atol=atol, msg=lambda m, n=name: f"{n}: {m}")


def linear(p: torch.Tensor, e: torch.Tensor, w: float) -> torch.Tensor:
    return p + w * (e - p)


def spherical(p: torch.Tensor, e: torch.Tensor, w: float) -> torch.Tensor:
    """Row by row in Python floats, by the formula in the authors' paper and code."""
    rows_p, rows_e = p.double().reshape(-1, p.shape[-1]), e.double().reshape(-1, e.shape[-1])
    rows = []
    for a, b in zip(rows_p, rows_e, strict=True):
        cosine = (a @ b / (a.norm() * b.norm())).clamp(-1 + 1e-6, 1 - 1e-6)
        angle = torch.acos(cosine)
        rows.append((torch.sin((1 - w) * angle) * a + torch.sin(w * angle) * b) / (torch.sin(angle) + 1e-6))
    return torch.stack(rows).reshape(p.shape).float()


FOLDS = {"lerp": linear, "proj": linear, "slerp": spherical, "dlerp": spherical, "dlerpin": spherical}


def factor(case: Case, tensors: dict[str, torch.Tensor], layer: int) -> float:
    """Weight that a dual-branch layer's factor stands for."""
    if case.method in ("dlerp", "dlerpin"):
        return torch.sigmoid(tensors[f"model.layers.{layer}.interp_weight.fc.bias"]).item()
    if case.factor is None:
        return 1.0
    return torch.sigmoid(tensors[f"model.layers.{layer}.interpolation_factor"]).item()


def merged_by_hand(case: Case, tensors: dict[str, torch.Tensor], layer_weights: dict[int, float]) -> dict:
    """The plain model's tensors, layer by layer of the layout."""
    merged = {name: tensor for name, tensor in tensors.items() if not name.startswith("model.layers.")}
    fold, base = FOLDS[case.method], -1
    for layer, what in enumerate(case.layout):
        prefix = f"model.layers.{layer}."
        own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        if what != "stacked":
            base += 1
        place = f"model.layers.{base}."
        if what == "plain":
            merged |= {place + name: tensor for name, tensor in own.items()}
        elif what == "stacked":
            merged |= {place + name: fold(merged[place + name], own[name], layer_weights[layer]) for name in own}
        else:
            for name, pretrained in own.items():
                if name.startswith("pretrained_layer."):
                    rest = name.removeprefix("pretrained_layer.")
                    merged[place + rest] = fold(pretrained, own[f"expanded_layer.{rest}"], layer_weights[layer])
    return merged


@pytest.mark.parametrize("name", MERGED)
def test_weights_and_logits_are_the_authors(golden, name, tmp_path):
    merge(golden / name.removeprefix("merged_"), tmp_path / "out")
    assert_same(weights(tmp_path / "out"), weights(golden / name))
    expected = load_file(golden / name / "expected.safetensors")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert type(model) is LlamaForCausalLM
    with torch.inference_mode():
        ours = model(expected["input_ids"]).logits
    torch.testing.assert_close(ours, expected["logits"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", MERGED)
def test_config_is_the_familys_and_says_what_was_merged(golden, name, tmp_path):
    merge(golden / name.removeprefix("merged_"), tmp_path / "out")
    ours, theirs = config(tmp_path / "out"), config(golden / name)
    ours_expansion, theirs_expansion = ours["expansion"], theirs["expansion"]
    assert ours_expansion["num_exp_layers"] == -4
    for field in ("expand_type", "merge_method", "freezed_layers", "num_ori_layers", "num_exp_layers"):
        assert ours_expansion[field] == theirs_expansion[field]
    for field in ("model_type", "architectures", "num_hidden_layers", "rms_norm_eps", "hidden_size", "vocab_size"):
        assert ours[field] == theirs[field]


@pytest.mark.parametrize(
    "case",
    [
        Case(method="lerp", factor=None),
        Case(method="lerp", num_exp_layers=4, frozen=True),
        Case(method="proj"),
        Case(method="dlerpin"),
        Case(method="lerp", norm_alpha=-1),
        Case(kind="hybrid", method="lerp"),
        Case(kind="hybrid", method="dlerp", num_exp_layers=4),
        Case(kind="stack", method="slerp"),
        Case(family="mistral", method="slerp"),
        Case(family="qwen2", kind="hybrid", method="lerp"),
        Case(family="qwen3", method="dlerp"),
        Case(method="lerp", fields={"tie_word_embeddings": True}),
    ],
    ids=lambda case: f"{case.family}-{case.kind}-{case.method}-{case.factor}-{case.norm_alpha}-{case.num_exp_layers}",
)
def test_each_method_and_expansion_by_its_formula(case, tmp_path):
    model = case.write(tmp_path / "model")
    tensors = weights(model)
    wanted = {layer: factor(case, tensors, layer) for layer in case.layers("dual")}
    wanted |= {layer: torch.sigmoid(torch.tensor(case.factor)).item() for layer in case.layers("stacked")}
    result = merge(model, tmp_path / "out")
    assert result.weights == pytest.approx(wanted)
    assert_same(weights(tmp_path / "out"), merged_by_hand(case, tensors, wanted), atol=2e-6)
    assert logits(tmp_path / "out").isfinite().all()
    assert config(tmp_path / "out")["model_type"] == case.family
    assert config(tmp_path / "out")["num_hidden_layers"] == case.num_ori_layers


def test_bf16_is_folded_in_fp32_and_rounded_once(tmp_path):
    case = Case(method="lerp", fields={"torch_dtype": "bfloat16"})
    model = case.write(tmp_path / "model")
    tensors = weights(model)
    merge(model, tmp_path / "out")
    wide = {name: tensor.float() for name, tensor in tensors.items()}
    wanted = merged_by_hand(case, wide, {layer: factor(case, wide, layer) for layer in case.layers("dual")})
    ours = weights(tmp_path / "out")
    assert {tensor.dtype for tensor in ours.values()} == {torch.bfloat16}
    for name in wanted:
        step = wanted[name].abs() * 2**-8 + 1e-30  # half a unit in the last place of bf16, and a little
        assert ((ours[name].float() - wanted[name]).abs() <= step).all(), name


@pytest.mark.parametrize("case", [Case(), Case(method="dlerp"), Case(kind="hybrid")], ids=["lerp", "dlerp", "hybrid"])
def test_the_authors_measured_weights_and_the_factor_for_the_rest(case, tmp_path):
    model = case.write(tmp_path / "model")
    tensors = weights(model)
    first, *rest = case.layers("dual")
    file = tmp_path / "evaluation_results.json"
    file.write_text(json.dumps({"eval_loss": 1.0, "eval_avg_interp_weights": {f"layer_{first}": 0.9}}))
    result = merge(model, tmp_path / "out", weights_from=file)
    wanted = {layer: factor(case, tensors, layer) for layer in rest} | {first: 0.9}
    wanted |= {layer: torch.sigmoid(torch.tensor(case.factor)).item() for layer in case.layers("stacked")}
    assert result.weights == pytest.approx(wanted)
    assert result.measured == {first: 0.9}
    assert_same(weights(tmp_path / "out"), merged_by_hand(case, tensors, wanted), atol=2e-6)


def test_a_reports_weights_serve_new_and_original_skills_alike(tmp_path):
    case = Case(method="dlerpin")
    model = case.write(tmp_path / "model")
    layers = [{"layer": layer, "weight_new": 0.7, "weight_originals": 0.2} for layer in case.layers("dual")]
    report = tmp_path / "measured.json"
    report.write_text(json.dumps({"schema": 1, "checkpoint": "0" * 12, "training": {"layers": layers}}))
    merge(model, tmp_path / "out", weights_from=report)
    wanted = merged_by_hand(case, weights(model), dict.fromkeys(case.layers("dual"), 0.45))
    assert_same(weights(tmp_path / "out"), wanted, atol=2e-6)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"eval_avg_interp_weights": {"layer_2": 0.5}}, "layer 2 has no two branches; .*: 1, 3"),
        ({"eval_avg_interp_weights": {"layer_1": 1.5}}, "layer 1: 1.5 is not a number from 0 to 1"),
        ({"eval_avg_interp_weights": {"layer_1": float("nan")}}, "layer 1: nan is not a number"),
        ({"eval_avg_interp_weights": {"layer_1": "half"}}, "layer 1: 'half' is not a number"),
        ({"eval_avg_interp_weights": {"first": 0.5}}, "no weights found"),
        ({"eval_avg_interp_weights": {}}, "lists no layer"),
        ({"training": {"layers": [{"layer": 1}]}}, "no weights found; allowed: a report.json"),
        ({"eval_loss": 1.0}, "no weights found"),
        ([1], "not a JSON object"),
    ],
)
def test_bad_weights_are_refused(values, said, tmp_path):
    model = Case().write(tmp_path / "model")
    (tmp_path / "weights.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=said):
        merge(model, tmp_path / "out", weights_from=tmp_path / "weights.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "weights.json"]


def test_weights_that_nothing_would_use_are_refused(golden, tmp_path):
    with pytest.raises(ValueError, match="weights_from: not allowed with expansion 'stack'"):
        merge(golden / "llama_stack", tmp_path / "out", weights_from=tmp_path / "weights.json")


@pytest.mark.parametrize(
    ("name", "reason"),
    [("llama_concat_moe_f02", "each token chooses"), ("llama_concat_prog_f03", "a lateral connection")],
)
def test_methods_without_a_fold_are_refused_with_the_reason(golden, name, reason, tmp_path):
    with pytest.raises(ValueError, match=f"cannot be merged back: {reason}"):
        merge(golden / name, tmp_path / "out")
    with pytest.raises(ValueError, match=f"cannot be merged back: {reason}"):
        merge_two(golden / name, golden / name, tmp_path / "out", keep_branches=True)
    assert list(tmp_path.iterdir()) == []


def test_what_is_lost_is_said(golden, tmp_path):
    dynamic = merge(golden / "llama_concat_lerp_normdyn_f05", tmp_path / "a").lost
    gates = merge(golden / "llama_concat_dlerp", tmp_path / "b").lost
    depth = merge(golden / "llama_stack", tmp_path / "c").lost
    assert any("relaxed norm" in line and "a learned share" in line for line in dynamic)
    assert any("weight of each token in layers 1, 3, 5, 7" in line for line in gates)
    assert any("layers 2, 5, 8, 11 are folded" in line for line in depth)
    assert all(any("control scale" in line for line in lines) for lines in (dynamic, gates, depth))
    assert not any("relaxed norm" in line for line in gates + depth)


def test_scores_are_those_of_the_report_of_this_checkpoint_only(tmp_path):
    from cllm_model.checkpoint import checkpoint_hash

    model = Case().write(tmp_path / "model")
    assert scores(model) == []
    skill = {"name": "tavi", "kind": "new", "scores": {"base": 0.0, "control": 0.92}}
    report = {"schema": 1, "checkpoint": checkpoint_hash(model), "skills": [skill]}
    (tmp_path / "report.json").write_text(json.dumps(report))
    assert scores(model) == ["tavi (new): base 0.000, as trained 0.920"]
    (tmp_path / "report.json").write_text(json.dumps(report | {"checkpoint": "0" * 12}))
    assert scores(model) == []


@pytest.mark.parametrize("name", ["llama_concat_lerp", "llama_stack"])
def test_a_merged_checkpoint_is_a_base_like_any_other(golden, name, tmp_path):
    merge(golden / name, tmp_path / "merged")
    written = expand(tmp_path / "merged", tmp_path / "again", [0, 5], "dlerp")
    assert written.dual.expanded_layers == (0, 5)
    torch.testing.assert_close(logits(tmp_path / "again"), logits(golden / f"merged_{name}"), rtol=0, atol=1e-5)


def test_a_failed_merge_leaves_nothing(golden, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError("no space left on device")

    monkeypatch.setattr("cllm_model.checkpoint.copy_companions", full)
    with pytest.raises(OSError, match="no space left"):
        merge(golden / "llama_concat_lerp", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


# Two models


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
    from cllm_model.convert import convert

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
