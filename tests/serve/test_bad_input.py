"""Bad input ends with code 2 and a message that names it, before anything heavy is started."""

import json
import shutil
import socket
import subprocess

import pytest
from safetensors.torch import load_file, save_file

import cllm
from serve import launch
from tests import serving

QUICK_S = 60


def run(*arguments, **changes):
    return subprocess.run(
        serving.command(*arguments), env=serving.environment(**changes), capture_output=True, text=True, timeout=QUICK_S
    )


@pytest.fixture
def refused(capsys, monkeypatch):
    """The message with which a command line is refused. In this process: importing torch each time would be slow."""
    monkeypatch.setattr(launch, "end_on_signals", lambda: None)

    def refused(*arguments, **changes):
        for name, value in {"CLLM_PORT": str(serving.free_port()), **changes}.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            cllm.main(["serve", *map(str, arguments)])
        assert ended.value.code == 2
        return capsys.readouterr().err

    return refused


@pytest.fixture
def copy(checkpoint, tmp_path):
    return shutil.copytree(checkpoint, tmp_path / "copy")


def test_help_is_quick_and_names_the_options():
    shown = run("--help")
    assert shown.returncode == 0
    for option in ("--name", "--host", "--port", "--check"):
        assert option in shown.stdout


def test_check_starts_nothing(checkpoint):
    checked = run(checkpoint, "--check", "--port", serving.free_port(), CLLM_NAME="fine")
    assert checked.returncode == 0 and "fine:base" in checked.stdout
    assert "vllm" not in checked.stderr.lower()


def test_no_directory(tmp_path):
    ended = run(tmp_path / "nowhere", "--port", serving.free_port())
    assert ended.returncode == 2
    assert "nowhere" in ended.stderr and "Traceback" not in ended.stderr


def test_a_model_of_another_type(checkpoint, refused):
    message = refused(checkpoint.parent / "base")
    assert "'llama'" in message and "control_llm" in message


def test_truncated_weights(copy, refused):
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    assert "model.safetensors" in refused(copy)


def test_renamed_tensors(copy, refused):
    weights = copy / "model.safetensors"
    tensors = load_file(weights)
    tensors["model.layers.1.expanded.mlp.up_proj.weight"] = tensors.pop(
        "model.layers.1.expanded_layer.mlp.up_proj.weight"
    )
    save_file(tensors, weights, metadata={"format": "pt"})
    message = refused(copy)
    assert "missing: model.layers.1.expanded_layer.mlp.up_proj.weight" in message
    assert "left over: model.layers.1.expanded.mlp.up_proj.weight" in message


def test_a_port_in_use(checkpoint, refused):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        message = refused(checkpoint, "--port", taken.getsockname()[1])
    assert "port" in message and "in use" in message


@pytest.mark.parametrize("port", ["0", "70000"])
def test_a_port_out_of_range(checkpoint, port, refused):
    assert port in refused(checkpoint, "--port", port)
    assert port in refused(checkpoint, CLLM_PORT=port)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--default-scale", "x"),
        ("--default-scale", "nan"),
        ("--default-scale", "3"),
        ("--max-scale", "2.5"),
        ("--max-scale", "0.5"),  # below the default scale
    ],
)
def test_a_scale_that_is_not_allowed(checkpoint, option, value, refused):
    assert "scale" in refused(checkpoint, option, value)


@pytest.mark.parametrize("name", ["a:b", "a@b", "a/b", "a\nb"])
def test_a_name_that_ids_cannot_hold(checkpoint, name, refused):
    assert "name" in refused(checkpoint, "--name", name)


def test_a_host_that_is_not_ours(checkpoint, refused):
    assert "192.0.2.1" in refused(checkpoint, "--host", "192.0.2.1")


def test_an_unknown_merge_method(copy, refused):
    config = json.loads((copy / "config.json").read_text())
    config["expansion"]["merge_method"] = "nothing"
    (copy / "config.json").write_text(json.dumps(config))
    message = refused(copy)
    assert "'nothing'" in message and "dlerp" in message
