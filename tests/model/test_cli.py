"""The checkpoint subcommands as a user calls them: output, exit codes, messages."""

import json

import pytest

import cllm


def run(*args) -> int:
    """Exit code of `cllm ARGS`."""
    with pytest.raises(SystemExit) as end:
        cllm.main([str(arg) for arg in args])
    return end.value.code or 0


def test_expand_inspect_extract(tiny_base, tmp_path, capsys):
    assert run("expand", tiny_base, tmp_path / "dual", "--layers", 2, "--method", "dlerp") == 0
    assert "layers 1, 3 have two branches (dlerp)" in (output := capsys.readouterr().out)
    assert "largest difference to the base in logits of random tokens: 0" in output

    assert run("inspect", tmp_path / "dual", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    copied = 32 * (32 + 16 + 16 + 32) + 3 * 32 * 64 + 2 * 32  # q, k, v, o; gate, up, down; norms
    assert facts["parameters_trained"] == 2 * (copied + 2 * 32 + 1)
    assert facts["bytes"] == 4 * (facts["parameters_trained"] + facts["parameters_frozen"])
    assert facts["kv_bytes_per_token_base"] == 4 * 2 * 2 * 8 * 4  # layers, keys and values, heads, head size, fp32
    assert facts["kv_bytes_per_token_dual"] == 6 * 2 * 2 * 8 * 4
    assert facts["expanded_layers"] == [1, 3]

    assert run("inspect", tmp_path / "dual") == 0
    assert "merge method" in capsys.readouterr().out
    assert run("extract", tmp_path / "dual", tmp_path / "base") == 0
    assert "llama, 4 layers" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("inspect", "{tmp}/nowhere"), "nowhere: no such directory"),
        (("inspect", "{base}"), "model_type: 'llama' is not one of control_llm, causallmexpansion"),
        (("expand", "{base}", "{tmp}/out", "--layers", "3", "--method", "lerp"), "allowed: 1, 2, 4"),
        (("expand", "{base}", "{tmp}/out", "--layers", "2", "--method", "max"), "'max' is not one of lerp, dlerp"),
        (("extract", "{base}", "{tmp}/out"), "model_type: 'llama' is not one of"),
    ],
)
def test_bad_input_ends_with_2(tiny_base, tmp_path, capsys, args, message):
    assert run(*(arg.format(tmp=tmp_path, base=tiny_base) for arg in args)) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_unknown_command_and_option_end_with_2(capsys):
    assert run("expandd") == 2
    assert run("inspect", "--jsn") == 2
