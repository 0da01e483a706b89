"""Checkpoint directories: what is wrong is named before anything is built, and nothing is left half written."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from cllm_model import checkpoint
from cllm_model.expand import expand
from cllm_model.tensors import LazyTensor, read_headers, write_tensors


@pytest.fixture
def dual(tiny_base: Path, tmp_path: Path) -> Path:
    expand(tiny_base, tmp_path / "dual", 2, "dlerp")
    return tmp_path / "dual"


def edit_config(directory: Path, **values) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_config_records_the_expansion(dual):
    config = json.loads((dual / "config.json").read_text())
    assert config["model_type"] == "control_llm"
    assert config["architectures"] == ["ControlLLMForCausalLM"]
    assert config["base_model_type"] == "llama"
    assert config["expansion"]["expanded_layers"] == [1, 3]


def test_shards_are_read_back(dual, tmp_path):
    shutil.copytree(dual, tmp_path / "sharded")
    (tmp_path / "sharded/model.safetensors").unlink()
    write_tensors(tmp_path / "sharded", read_headers(dual), shard_bytes=20_000)
    files = list((tmp_path / "sharded").glob("*.safetensors"))
    assert len(files) > 2
    assert all(file.stat().st_size < 25_000 for file in files)  # 20,000, and a header
    checkpoint.check(tmp_path / "sharded")
    one, many = (AutoModelForCausalLM.from_pretrained(d).state_dict() for d in (dual, tmp_path / "sharded"))
    assert all(torch.equal(one[name], many[name]) for name in one)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_files_are_what_safetensors_reads(dtype, tmp_path):
    """Our writer against the format's own reader: odd sizes, an empty tensor, a scalar, a transposed view."""
    names = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.float64: "F64"}
    wanted = {
        "odd": torch.randn(3, 5).to(dtype),
        "one": torch.randn(1).to(dtype),
        "scalar": torch.randn(()).to(dtype),
        "empty": torch.empty(0, 4, dtype=dtype),
        "turned": torch.randn(4, 6).to(dtype).T,
    }
    described = {
        name: LazyTensor(tuple(tensor.shape), names[dtype], lambda t=tensor: t) for name, tensor in wanted.items()
    }
    write_tensors(tmp_path, described)
    found = load_file(tmp_path / "model.safetensors")
    assert found.keys() == wanted.keys()
    assert all(found[name].dtype == dtype and torch.equal(found[name], wanted[name]) for name in wanted)


def test_one_tensor_at_a_time_is_loaded(tmp_path):
    alive = []

    def load() -> torch.Tensor:
        import gc
        import weakref

        gc.collect()
        assert not any(reference() is not None for reference in alive)
        tensor = torch.ones(1000)
        alive.append(weakref.ref(tensor))
        return tensor

    write_tensors(tmp_path, {str(i): LazyTensor((1000,), "F32", load) for i in range(5)}, shard_bytes=8000)
    assert len(alive) == 5


def test_hash_follows_the_weights(dual):
    before = checkpoint.checkpoint_hash(dual)
    assert len(before) == 12
    tensors = load_file(dual / "model.safetensors")
    tensors["model.norm.weight"][0] += 1
    save_file(tensors, dual / "model.safetensors", metadata={"format": "pt"})
    assert checkpoint.checkpoint_hash(dual) != before


def test_files_can_be_read_by_others(dual):
    assert {oct(file.stat().st_mode & 0o777) for file in dual.iterdir()} == {"0o644"}


def test_renamed_tensor_is_named_as_missing_and_left_over(dual):
    tensors = load_file(dual / "model.safetensors")
    tensors["model.layers.1.interp_weight.gate.bias"] = tensors.pop("model.layers.1.interp_weight.fc.bias")
    save_file(tensors, dual / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(checkpoint.CheckpointError) as error:
        checkpoint.check(dual)
    assert "missing: model.layers.1.interp_weight.fc.bias" in str(error.value)
    assert "left over: model.layers.1.interp_weight.gate.bias" in str(error.value)


def test_misshapen_tensor_is_named_with_both_shapes(dual):
    tensors = load_file(dual / "model.safetensors")
    tensors["model.norm.weight"] = torch.ones(7)
    save_file(tensors, dual / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(checkpoint.CheckpointError, match=r"misshapen: model.norm.weight \[7\] instead of \[32\]"):
        checkpoint.check(dual)


def test_truncated_file_is_named(dual):
    path = dual / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(checkpoint.CheckpointError, match="model.safetensors: cannot be read .*truncated"):
        checkpoint.check(dual)


def test_missing_directory_config_and_weights(dual, tmp_path):
    with pytest.raises(checkpoint.CheckpointError, match="nowhere: no such directory"):
        checkpoint.check(tmp_path / "nowhere")
    (dual / "model.safetensors").unlink()
    with pytest.raises(checkpoint.CheckpointError, match="model.safetensors: no such file"):
        checkpoint.check(dual)
    (dual / "config.json").unlink()
    with pytest.raises(checkpoint.CheckpointError, match="config.json: no such file"):
        checkpoint.check(dual)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "bert"}, "model_type: 'bert' is not one of control_llm, causallmexpansion"),
        ({"base_model_type": "gpt2"}, "base_model_type: 'gpt2' is not one of llama"),
        ({"expansion": None}, "expansion: missing"),
        ({"expansion": {"merge_method": "dlerp"}}, "expansion.expanded_layers: missing"),
        ({"expansion": {"expanded_layers": [9], "merge_method": "dlerp"}}, "9 is out of range"),
        (
            {"expansion": {"expanded_layers": [1], "merge_method": "max"}},
            "merge_method: 'max' is not one of lerp, slerp, dlerp, dlerpin, moe, proj, prog",
        ),
        ({"expansion": {"expanded_layers": [1], "merge_method": "lerp", "gate": 1}}, "expansion.gate: unknown field"),
    ],
)
def test_bad_config_names_field_value_and_choices(dual, values, message):
    edit_config(dual, **values)
    with pytest.raises(ValueError, match=message.replace("[", r"\[")):
        checkpoint.check(dual)


def test_failed_expansion_leaves_nothing(tiny_base, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError("no space left on device")

    monkeypatch.setattr(checkpoint, "copy_companions", full)  # the weights are written by then
    with pytest.raises(OSError, match="no space left"):
        expand(tiny_base, tmp_path / "out", 2, "dlerp")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tiny_base, dual):
    before = checkpoint.checkpoint_hash(dual)
    with pytest.raises(checkpoint.CheckpointError, match="exists already"):
        expand(tiny_base, dual, 2, "lerp")
    assert checkpoint.checkpoint_hash(dual) == before
