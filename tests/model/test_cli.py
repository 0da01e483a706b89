"""The checkpoint subcommands as a user calls them: output, exit codes, messages."""

import json
import re
import shutil

import pytest
from safetensors.torch import load_file

import cllm
from cllm_model.checkpoint import checkpoint_hash


def run(*args) -> int:
    """Exit code of `cllm ARGS`."""
    with pytest.raises(SystemExit) as end:
        cllm.main([str(arg) for arg in args])
    return end.value.code or 0


def test_expand_inspect_extract(tiny_base, tmp_path, capsys):
    assert run("expand", tiny_base, tmp_path / "dual", "--layers", 2, "--method", "dlerp") == 0
    assert "layers 1, 3 have two branches (dlerp)" in (output := capsys.readouterr().out)
    assert "largest difference to the base in logits of random tokens: 0" in output
    assert "expected" not in output

    assert run("inspect", tmp_path / "dual", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    copied = 32 * (32 + 16 + 16 + 32) + 3 * 32 * 64 + 2 * 32  # q, k, v, o; gate, up, down; norms
    assert facts["parameters_trained"] == 2 * (copied + 2 * 32 + 1)
    assert facts["bytes"] == 4 * (facts["parameters_trained"] + facts["parameters_frozen"])
    assert facts["kv_bytes_per_token_base"] == 4 * 2 * 2 * 8 * 4  # layers, keys and values, heads, head size, fp32
    assert facts["kv_bytes_per_token_dual"] == 6 * 2 * 2 * 8 * 4
    assert facts["expanded_layers"] == [1, 3]

    assert run("inspect", tmp_path / "dual") == 0
    shown = capsys.readouterr().out
    for line in (r"merge method +dlerp", r"stacked layers +none", r"factor frozen +no", r"mean weights +1: unknown, 3"):
        assert re.search(line, shown)
    assert run("extract", tmp_path / "dual", tmp_path / "base") == 0
    assert "llama, 4 layers" in capsys.readouterr().out


def test_expand_with_every_option(tiny_base, tmp_path, capsys):
    options = ["--at", "0,2", "--method", "lerp", "--expansion", "hybrid", "--family", "llama", "--factor", "-0.5"]
    options += ["--freeze-factor", "--norm-alpha", "-1"]
    assert run("expand", tiny_base, tmp_path / "dual", *options) == 0
    output = capsys.readouterr().out
    assert "layers 3 have two branches (lerp)" in output
    assert "layers 1 are stacked behind their source" in output
    assert "a difference is expected: the relaxed norm" in output
    expansion = json.loads((tmp_path / "dual/config.json").read_text())["expansion"]
    assert expansion == {
        "kind": "hybrid", "merge_method": "lerp", "expanded_layers": [3], "stacked_layers": [1],
        "interpolation_factor": -0.5, "freeze_factor": True, "norm_alpha": -1.0, "branch": "full",
    }  # fmt: skip
    assert run("expand", tiny_base, tmp_path / "null", "--layers", 1, "--method", "lerp", "--factor", "null") == 0
    assert not any("interpolation_factor" in name for name in load_file(tmp_path / "null/model.safetensors"))


def test_merge_says_what_is_lost_and_what_was_measured(golden, tmp_path, capsys):
    model = tmp_path / "model"
    shutil.copytree(golden / "llama_concat_dlerp", model)
    layers = [{"layer": layer, "weight_new": 0.5, "weight_originals": 0.25} for layer in (1, 3, 5, 7)]
    skill = {"name": "tavi", "kind": "new", "scores": {"base": 0.0, "control": 0.92}}
    report = {"schema": 1, "checkpoint": checkpoint_hash(model), "skills": [skill], "training": {"layers": layers}}
    (tmp_path / "report.json").write_text(json.dumps(report))
    assert run("merge", model, tmp_path / "plain", "--weights-from", tmp_path / "report.json") == 0
    output = capsys.readouterr().out
    assert "plain: llama, 8 layers" in output
    assert "layer 5: weight 0.3750 (measured)" in output
    assert "lost: the control scale" in output
    assert "lost: the weight of each token in layers 1, 3, 5, 7" in output
    assert "tavi (new): base 0.000, as trained 0.920" in output

    assert run("merge", golden / "llama_concat_lerp", golden / "llama_concat_lerp_b", tmp_path / "both") == 0
    assert "layer 1: weight 0.5402 (of its factor)" in capsys.readouterr().out
    names = [golden / "llama_concat_lerp", golden / "llama_concat_lerp_b", tmp_path / "kept"]
    assert run("merge", *names, "--keep-branches") == 0
    assert "lost:" not in capsys.readouterr().out
    assert run("inspect", tmp_path / "kept") == 0


def test_convert(golden, tmp_path, capsys):
    assert run("convert", golden / "llama_stack", tmp_path / "ours", "--format", "control-llm") == 0
    assert "control_llm, 12 layers" in capsys.readouterr().out
    assert run("convert", tmp_path / "ours", tmp_path / "back", "--format", "published", "--family", "llama") == 0
    assert "llama, 12 layers" in capsys.readouterr().out


EXPAND = ("expand", "{base}", "{tmp}/out", "--method", "lerp")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("inspect", "{tmp}/nowhere"), "nowhere: no such directory"),
        (("inspect", "{base}"), "model_type: 'llama' is not one of control_llm, causallmexpansion"),
        ((*EXPAND, "--layers", "3"), "allowed: 1, 2, 4"),
        ((*EXPAND[:-1], "max", "--layers", "2"), "'max' is not one of lerp, slerp, dlerp, dlerpin, moe, proj, prog"),
        (EXPAND, "give exactly one of --layers N and --at 1,3"),
        ((*EXPAND, "--layers", "2", "--at", "1,3"), "give exactly one of --layers N and --at 1,3"),
        ((*EXPAND, "--at", "1;3"), "at: '1;3' is not a list of layers"),
        ((*EXPAND, "--at", "1,9"), "9 is out of range; the base has layers 0 to 3"),
        ((*EXPAND, "--layers", "2", "--factor", "nan"), "factor: 'nan' is neither a finite number nor null"),
        ((*EXPAND, "--layers", "2", "--factor", "half"), "factor: 'half' is neither a finite number nor null"),
        ((*EXPAND, "--layers", "2", "--family", "qwen2"), "the family is 'llama', and not 'qwen2'"),
        ((*EXPAND, "--layers", "1", "--expansion", "hybrid"), "1 is odd"),
        (("extract", "{base}", "{tmp}/out"), "model_type: 'llama' is not one of"),
        (("merge", "{base}", "{tmp}/out"), "model_type: 'llama' is not one of"),
        (("merge", "{base}"), "give MODEL OUT or MODEL OTHER OUT, not 1 paths"),
        (("merge", "{lerp}", "{tmp}/out", "--keep-branches"), "keep_branches: only two checkpoints"),
        (("merge", "{lerp}", "{lerp}", "{tmp}/out", "--weights-from", "x"), "weights_from: not allowed with two"),
        (("merge", "{lerp}", "{tmp}/out", "--weights-from", "{tmp}/none.json"), "none.json: cannot be read as JSON"),
        (("merge", "{lerp}", "{dlerp}", "{tmp}/out"), "merge_method: 'lerp' in one checkpoint and 'dlerp' in the"),
        (("convert", "{lerp}", "{tmp}/out", "--format", "published"), "has the format 'published' already"),
        (("convert", "{lerp}", "{tmp}/out", "--format", "onnx"), "'onnx' is not one of control-llm, published"),
    ],
)
def test_bad_input_ends_with_2(tiny_base, golden, tmp_path, capsys, args, message):
    names = {"lerp": golden / "llama_concat_lerp", "dlerp": golden / "llama_concat_dlerp"}
    assert run(*(arg.format(tmp=tmp_path, base=tiny_base, **names) for arg in args)) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_unknown_command_and_option_end_with_2(capsys):
    assert run("expandd") == 2
    assert run("inspect", "--jsn") == 2
