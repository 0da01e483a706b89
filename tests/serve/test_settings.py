"""Settings: their limits, the file that may hold them, and what `--check` says of them. No engine is started."""

import dataclasses
from argparse import Namespace

import pytest
import typer.testing
from safetensors.torch import load_file

import cllm
from cllm_model.scale import MAX_SCALE, TRAINED_SCALE
from serve import launch
from serve.allocation import allocation
from serve.cli import serve
from serve.config_file import read_config_file
from serve.settings import Settings
from tests import serving


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_queue", 0),
        ("max_n", 0),
        ("max_tokens", 0),
        ("max_body_bytes", -1),
        ("drain_seconds", -1),
        ("body_seconds", float("nan")),
        ("body_seconds", 0),
        ("max_scale", 2.1),
        ("default_scale", True),
    ],
)
def test_values_out_of_range(tmp_path, field, value):
    with pytest.raises(ValueError, match=field):
        Settings(tmp_path, **{field: value})


def test_defaults_of_the_dial(tmp_path):
    assert (Settings(tmp_path).default_scale, Settings(tmp_path).max_scale) == (TRAINED_SCALE, MAX_SCALE)


def test_settings_do_not_change(tmp_path):
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings(tmp_path).port = 1


def test_every_setting_is_an_option_with_the_same_default():
    parameters = {parameter.name: parameter for parameter in typer.main.get_command(_app()).params}
    for field in dataclasses.fields(Settings):
        if field.name != "model":
            assert str(parameters[field.name].default) == str(field.default), field.name
    own = set(parameters) - {field.name for field in dataclasses.fields(Settings)}
    assert own <= {"config", "check", "help"}


def _app():
    app = typer.Typer(add_completion=False)
    app.command(context_settings=serve.context_settings)(serve)
    return app


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.yaml", "port: 1234\nname: n\nlog_prompts: true\nengine:\n  max-model-len: 64\n  enforce_eager: false\n"),
        (
            "a.toml",
            'port = 1234\nname = "n"\nlog_prompts = true\n[engine]\nmax-model-len = 64\nenforce_eager = false\n',
        ),
    ],
)
def test_a_file_of_options(tmp_path, name, text):
    file = tmp_path / name
    file.write_text(text)
    assert read_config_file(file) == {
        "port": 1234,
        "name": "n",
        "log_prompts": True,
        "engine": ["--max-model-len", "64", "--no-enforce-eager"],
    }


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.yaml", "prot: 1234", "'prot' is not an option; allowed: .*port"),
        ("a.toml", "api_keys = ['x']", "'api_keys' is not an option"),
        ("a.yaml", "config: b.yaml", "'config' is not an option"),
        ("a.yaml", "- port", "table"),
        ("a.yaml", "engine: 5", "engine"),
        ("a.yaml", "a: [", "cannot be read"),
        ("a.toml", "a =", "cannot be read"),
        ("a.json", "{}", ".yaml"),
        ("a.yaml", None, "cannot be read"),
    ],
)
def test_files_that_are_refused(tmp_path, name, text, message, capsys):
    file = tmp_path / name
    if text is not None:
        file.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_config_file(file)
    with pytest.raises(SystemExit) as ended:
        cllm.main(["serve", str(tmp_path), "--config", str(file)])
    assert ended.value.code == 2 and "config" in capsys.readouterr().err


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(checkpoint, tmp_path, monkeypatch, capsys):
    """Each of three names is from another source; all else, the model too, may stand in the file."""
    monkeypatch.setattr(launch, "end_on_signals", lambda: None)
    file = tmp_path / "serve.yaml"
    file.write_text(f"model: {checkpoint}\nname: of-the-file\nport: {serving.free_port()}\n")

    def served(*arguments):
        with pytest.raises(SystemExit) as ended:
            cllm.main(["serve", "--config", str(file), "--check", *arguments])
        assert ended.value.code == 0
        return capsys.readouterr().out

    assert "of-the-file:base" in served()
    monkeypatch.setenv("CLLM_NAME", "of-the-environment")
    assert "of-the-environment:base" in served()
    assert "of-the-command-line:base" in served("--name", "of-the-command-line")


def test_what_would_be_allocated(checkpoint):
    """Against the tensors themselves: 4 layers of 1 head of 32, two of them twice."""
    plain = allocation(checkpoint, None)
    assert plain.weights == sum(tensor.nbytes for tensor in load_file(checkpoint / "model.safetensors").values())
    assert (plain.dtype, plain.kv_base, plain.kv_dual) == ("float32", 4 * 2 * 32 * 4, 6 * 2 * 32 * 4)
    assert (plain.context, plain.parallel_sizes) == (512, (1, 2))
    options = Namespace(dtype="auto", kv_cache_dtype="auto", kv_cache_memory_bytes=None, max_model_len=100)
    half = allocation(checkpoint, options)
    assert (half.dtype, 2 * half.weights, 2 * half.kv_dual) == ("bfloat16", plain.weights, plain.kv_dual)
    assert half.context == 100 and "hold" not in "".join(half.lines())
