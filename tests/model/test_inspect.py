"""The facts that `cllm inspect` tells of a checkpoint, counted by hand or by torch."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from cllm_model import CausalLMExpansion
from cllm_model.checkpoint import checkpoint_hash
from cllm_model.expand import expand
from cllm_model.inspect import inspect
from tests.model.published_files import Case


def test_concat(golden):
    facts = inspect(golden / "llama_concat_lerp_b")
    tensors = load_file(golden / "llama_concat_lerp_b/model.safetensors")
    assert facts["format"] == "causallmexpansion"
    assert (facts["family"], facts["expansion"], facts["merge_method"]) == ("llama", "concat", "lerp")
    assert (facts["layers"], facts["layers_of_base"]) == (8, 8)
    assert (facts["expanded_layers"], facts["stacked_layers"]) == ([1, 3, 5, 7], [])
    assert facts["mean_weights"] == pytest.approx(
        {str(i): tensors[f"model.layers.{i}.interpolation_factor"].sigmoid().item() for i in (1, 3, 5, 7)}
    )
    assert facts["bytes"] == sum(tensor.nbytes for tensor in tensors.values())
    # 2 heads of 4, keys and values, fp32: 64 bytes a layer
    assert (facts["kv_bytes_per_token_base"], facts["kv_bytes_per_token_dual"]) == (8 * 64, 12 * 64)


def test_stack_and_hybrid_count_the_layers_of_the_base(golden):
    stack, hybrid = inspect(golden / "llama_stack"), inspect(golden / "llama_hybrid_lerp")
    assert (stack["format"], stack["layers"], stack["layers_of_base"]) == ("causallmexpansion", 12, 8)
    assert (stack["stacked_layers"], stack["expanded_layers"]) == ([2, 5, 8, 11], [])
    assert (stack["kv_bytes_per_token_base"], stack["kv_bytes_per_token_dual"]) == (8 * 64, 12 * 64)
    assert stack["mean_weights"] == {}
    assert (hybrid["layers"], hybrid["layers_of_base"]) == (10, 8)
    assert (hybrid["stacked_layers"], hybrid["expanded_layers"]) == ([2, 7], [4, 9])
    assert (hybrid["kv_bytes_per_token_base"], hybrid["kv_bytes_per_token_dual"]) == (8 * 64, 12 * 64)
    base = sum(tensor.numel() for tensor in load_file(golden / "base_llama/model.safetensors").values())
    assert stack["parameters_frozen"] == base
    assert hybrid["parameters_frozen"] == base


@pytest.mark.parametrize(
    "case",
    [
        Case(method="dlerp", frozen=True),
        Case(method="moe", frozen=True),
        Case(method="proj", frozen=True, norm_alpha=-1),
        Case(factor=None),
        Case(kind="hybrid", method="dlerpin"),
        Case(kind="stack", family="qwen3"),
        Case(family="qwen2", fields={"tie_word_embeddings": True, "torch_dtype": "bfloat16"}),
    ],
    ids=lambda case: f"{case.family}-{case.kind}-{case.method}",
)
def test_what_trains_is_what_the_format_says(case, tmp_path):
    """Expanded branches, stacked layers and interpolators train; a frozen factor is a tensor of its own."""
    model = case.write(tmp_path / "model")
    tensors = load_file(model / "model.safetensors")
    stacked = tuple(f"model.layers.{layer}." for layer in case.layers("stacked"))
    trained = {
        name
        for name in tensors
        if (stacked and name.startswith(stacked))
        or ".expanded_layer." in name
        or name.split(".")[3:4] and name.split(".")[3] in
        ("interpolation_factor", "interp_weight", "gating", "linear_proj")
    }  # fmt: skip
    if case.frozen:
        trained -= {name for name in trained if name.endswith((".interpolation_factor", ".fc.bias", "network.0.bias"))}
    facts = inspect(model)
    assert facts["parameters_trained"] == sum(tensors[name].numel() for name in trained)
    assert facts["parameters_frozen"] == sum(tensors[name].numel() for name in tensors.keys() - trained)
    assert facts["factor_frozen"] is case.frozen
    assert facts["norm_alpha"] == case.norm_alpha
    loaded = CausalLMExpansion.from_pretrained(model)
    loaded.freeze_pretrained()
    assert facts["parameters_trained"] == sum(p.numel() for p in loaded.parameters() if p.requires_grad)


def test_head_size_of_a_family_that_does_not_write_it(tmp_path):
    facts = inspect(Case(family="qwen2", fields={"torch_dtype": "bfloat16"}).write(tmp_path / "model"))
    assert facts["dtype"] == "BF16"
    assert facts["kv_bytes_per_token_base"] == 4 * 2 * 2 * (32 // 4) * 2  # layers, keys and values, heads, size, bf16


def test_gates_are_known_from_a_report_only(tmp_path):
    case = Case(method="dlerp")
    model = case.write(tmp_path / "model")
    assert inspect(model)["mean_weights"] == {"1": None, "3": None}
    layers = [{"layer": layer, "weight_new": 0.6, "weight_originals": 0.2} for layer in case.layers("dual")]
    report = {"schema": 1, "checkpoint": checkpoint_hash(model), "training": {"layers": layers}}
    (tmp_path / "report.json").write_text(json.dumps(report))
    assert inspect(model)["mean_weights"] == pytest.approx({"1": 0.4, "3": 0.4})
    (tmp_path / "report.json").write_text(json.dumps(report | {"checkpoint": "0" * 12}))  # of another checkpoint
    assert inspect(model)["mean_weights"] == {"1": None, "3": None}


@pytest.mark.parametrize("layers", ["nonsense", [{"layer": 1, "weight_new": 2, "weight_originals": 0}], None])
def test_a_broken_report_is_left_out_with_a_warning(layers, tmp_path, caplog):
    model = Case(method="dlerp").write(tmp_path / "model")
    report = {"checkpoint": checkpoint_hash(model), "training": {"layers": layers}}
    (tmp_path / "report.json").write_text("{" if layers is None else json.dumps(report))
    assert inspect(model)["mean_weights"] == {"1": None, "3": None}
    assert "report.json" in caplog.text and "left out" in caplog.text


def test_a_null_factor_is_the_expanded_branch_alone(tmp_path):
    facts = inspect(Case(factor=None).write(tmp_path / "model"))
    assert facts["interpolation_factor"] is None
    assert facts["mean_weights"] == {"1": 1.0, "3": 1.0}


def test_ours(tiny_base, tmp_path):
    expand(tiny_base, tmp_path / "dual", 2, "slerp", factor=math.log(3))
    facts = inspect(tmp_path / "dual")
    assert facts["format"] == "control_llm"
    assert facts["mean_weights"] == pytest.approx({"1": 0.75, "3": 0.75})
    assert facts["checkpoint"] == checkpoint_hash(tmp_path / "dual")
    parameters = sum(p.numel() for p in AutoModelForCausalLM.from_pretrained(tmp_path / "dual").parameters())
    assert facts["parameters_trained"] + facts["parameters_frozen"] == parameters
    assert facts["bytes"] == parameters * torch.float32.itemsize
