"""Both formats, read and written: tensors byte for byte, and a configuration that comes back as it was."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from cllm_model import CausalLMExpansion, ControlLLMForCausalLM
from cllm_model.checkpoint import CheckpointError
from cllm_model.config import ControlLLMConfig, Expansion
from cllm_model.convert import convert
from cllm_model.expand import expand
from cllm_model.tensors import read_headers, write_tensors
from tests.model.published_files import LLAMA31_ROPE, Case

GOLDEN_CASES = [
    "llama_concat_lerp",
    "llama_concat_dlerp",
    "llama_concat_lerp_normdyn_f05",
    "llama_hybrid_lerp",
    "llama_stack",
    "qwen2_concat_lerp",
]
WRITTEN = [
    Case(factor=None),
    Case(frozen=True),
    Case(kind="hybrid", method="dlerp", num_exp_layers=4),
    Case(kind="stack", family="qwen2"),
    Case(family="mistral"),
    Case(family="qwen3", kind="hybrid"),
    Case(fields={"tie_word_embeddings": True}),
    Case(family="qwen2", fields={"tie_word_embeddings": True}),
    Case(fields=LLAMA31_ROPE | {"torch_dtype": "bfloat16"}),
]
MATHS = ("rms_norm_eps", "rope_theta", "rope_scaling", "hidden_size", "num_hidden_layers", "tie_word_embeddings")


def config(directory: Path) -> dict:
    return json.loads((directory / "config.json").read_text())


def expected(directory: Path) -> dict[str, torch.Tensor]:
    return load_file(directory / "expected.safetensors")


@pytest.mark.parametrize("name", GOLDEN_CASES)
def test_our_format_computes_what_the_authors_did(golden, name, tmp_path):
    convert(golden / name, tmp_path / "ours", "control-llm")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    assert type(model) is ControlLLMForCausalLM
    assert config(tmp_path / "ours")["base_model_type"] == name.split("_")[0]
    with torch.inference_mode():
        logits = model(expected(golden / name)["input_ids"]).logits
    torch.testing.assert_close(logits, expected(golden / name)["logits"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", GOLDEN_CASES)
def test_there_and_back(golden, name, tmp_path):
    convert(golden / name, tmp_path / "ours", "control-llm")
    convert(tmp_path / "ours", tmp_path / "published", "published")
    assert_published_again(golden / name, tmp_path / "published")
    with torch.inference_mode():
        logits = AutoModelForCausalLM.from_pretrained(tmp_path / "published")(expected(golden / name)["input_ids"])
    torch.testing.assert_close(logits.logits, expected(golden / name)["logits"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("case", WRITTEN, ids=lambda case: f"{case.family}-{case.kind}-{case.method}-{case.fields}")
def test_there_and_back_for_each_family(case, tmp_path):
    case.write(tmp_path / "model")
    convert(tmp_path / "model", tmp_path / "ours", "control-llm")
    convert(tmp_path / "ours", tmp_path / "published", "published")
    assert_published_again(tmp_path / "model", tmp_path / "published")


def assert_published_again(original: Path, written: Path) -> None:
    """The weights are the same file; config.json says the same, in words that transformers 4 knows too."""
    assert (written / "model.safetensors").read_bytes() == (original / "model.safetensors").read_bytes()
    wanted, found = config(original), config(written)
    of_training = {"expanded_from", "interpolation_loss_alpha", "interpolation_loss_type"}
    for field in wanted["expansion"].keys() - of_training:
        assert found["expansion"][field] == wanted["expansion"][field], field
    for field in ("model_type", "architectures", "torch_dtype", "vocab_size", "num_key_value_heads", *MATHS):
        assert found[field] == wanted.get(field), field


def test_ours_there_and_back(tiny_base, tmp_path):
    written = expand(tiny_base, tmp_path / "dual", [0, 2, 3], "slerp", factor=0.4, freeze_factor=True, norm_alpha=0.3)
    convert(tmp_path / "dual", tmp_path / "published", "published")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "published")
    assert type(model) is CausalLMExpansion
    assert model.config.dual == written.dual
    convert(tmp_path / "published", tmp_path / "again", "control-llm")
    assert (tmp_path / "again/model.safetensors").read_bytes() == (tmp_path / "dual/model.safetensors").read_bytes()
    assert config(tmp_path / "again") == config(tmp_path / "dual")


def test_index_and_shards_and_companions_go_with_it(golden, tmp_path):
    source = tmp_path / "sharded"
    source.mkdir()
    write_tensors(source, read_headers(golden / "llama_hybrid_lerp"), shard_bytes=20_000)
    shutil.copy(golden / "llama_hybrid_lerp/config.json", source)
    (source / "tokenizer.json").write_text("{}")
    (source / "notes.txt").write_text("of the old one only")
    convert(source, tmp_path / "ours", "control-llm")
    shards = sorted(path.name for path in source.glob("*.safetensors"))
    assert len(shards) > 2
    for name in [*shards, "model.safetensors.index.json", "tokenizer.json"]:
        assert (tmp_path / "ours" / name).read_bytes() == (source / name).read_bytes()
    assert not (tmp_path / "ours/notes.txt").exists()
    with torch.inference_mode():
        wanted = expected(golden / "llama_hybrid_lerp")
        logits = AutoModelForCausalLM.from_pretrained(tmp_path / "ours")(wanted["input_ids"]).logits
    torch.testing.assert_close(logits, wanted["logits"], rtol=0, atol=1e-5)


def test_what_the_published_format_cannot_say_is_refused(tiny_base, tmp_path):
    expand(tiny_base, tmp_path / "dual", 4, "lerp", kind="hybrid")
    path = tmp_path / "dual/config.json"
    values = config(tmp_path / "dual")
    dual = ControlLLMConfig.from_dict(values).dual
    assert isinstance(dual, Expansion)
    # doubled before stacked: layer 0 dual, layer 1 and its copy, layers 3 and 4 and its copy
    assert (dual.expanded_layers, dual.stacked_layers) == ((2, 5), (1, 4))
    values["expansion"] |= {"expanded_layers": [0, 3], "stacked_layers": [2, 5]}
    path.write_text(json.dumps(values))
    tensors = load_file(tmp_path / "dual/model.safetensors")
    moved = {0: 1, 1: 2, 2: 0, 3: 4, 4: 5, 5: 3}
    layers = {name: int(name.split(".")[2]) for name in tensors if name.startswith("model.layers.")}
    renamed = {
        name.replace(f"layers.{layers[name]}.", f"layers.{moved[layers[name]]}.") if name in layers else name: tensor
        for name, tensor in tensors.items()
    }
    save_file(renamed, tmp_path / "dual/model.safetensors", metadata={"format": "pt"})
    AutoModelForCausalLM.from_pretrained(tmp_path / "dual")
    with pytest.raises(ValueError, match="the published format cannot say where its layers are"):
        convert(tmp_path / "dual", tmp_path / "out", "published")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("stored", ["control-llm", "published"])
def test_a_format_that_it_has_already_is_refused(golden, stored, tmp_path):
    source = golden / "llama_concat_lerp"
    if stored == "control-llm":
        convert(source, tmp_path / "ours", stored)
        source = tmp_path / "ours"
    with pytest.raises(ValueError, match=f"has the format '{stored}' already"):
        convert(source, tmp_path / "out", stored)
    with pytest.raises(ValueError, match="format: 'gguf' is not one of control-llm, published"):
        convert(source, tmp_path / "out", "gguf")


def test_a_family_that_cannot_be_told_is_named(tmp_path):
    source = Case(family="mistral").write(tmp_path / "model")
    values = config(source)
    del values["sliding_window"]
    (source / "config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match="base_model_type: .* cannot be told .* --family; allowed: llama, mistral"):
        convert(source, tmp_path / "out", "control-llm")
    assert convert(source, tmp_path / "out", "control-llm", family="mistral").base_model_type == "mistral"
    with pytest.raises(ValueError, match="'qwen3' is named, but the checkpoint is of the family 'llama'"):
        convert(Case().write(tmp_path / "llama"), tmp_path / "out2", "control-llm", family="qwen3")
    with pytest.raises(CheckpointError, match="the family is 'mistral', and not 'llama'"):
        convert(tmp_path / "out", tmp_path / "out2", "published", family="llama")


def test_tensor_names_tell_the_family_where_the_fields_do_not(tmp_path):
    source = Case(family="qwen2").write(tmp_path / "model")
    values = config(source)
    for field in ("use_sliding_window", "max_window_layers", "sliding_window"):
        del values[field]
    (source / "config.json").write_text(json.dumps(values))
    assert convert(source, tmp_path / "out", "control-llm").base_model_type == "qwen2"
    assert AutoModelForCausalLM.from_pretrained(source).config.base_model_type == "qwen2"
    assert CausalLMExpansion.from_pretrained(source).config.base_model_type == "qwen2"
