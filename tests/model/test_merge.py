"""Merging back: against the authors' results and against the formulas written out; what has no meaning is refused."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from cllm_model.checkpoint import checkpoint_hash
from cllm_model.expand import expand
from cllm_model.merge import merge, scores
from cllm_model.merge_two import merge_two
from tests.model.merging import assert_same, config, factor, logits, merged_by_hand, weights
from tests.model.published_files import Case

MERGED = [
    "merged_llama_concat_lerp",
    "merged_llama_concat_slerp_f04",
    "merged_llama_concat_dlerp",
    "merged_llama_stack",
]


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
