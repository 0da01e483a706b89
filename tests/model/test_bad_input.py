"""What is wrong with a checkpoint is named before a single tensor is read: by every command, and by Hugging Face."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from cllm_model import CausalLMExpansion, ControlLLMForCausalLM, ControlLLMModel, tensors
from cllm_model.convert import convert
from cllm_model.expand import expand, extract
from cllm_model.inspect import inspect
from cllm_model.merge import merge
from cllm_model.merge_two import merge_two
from tests.model.published_files import Case

IDS = torch.arange(1, 9)[None]

READERS: dict[str, Callable[[Path, Path], object]] = {
    "extract": extract,
    "inspect": lambda model, out: inspect(model),
    "merge": merge,
    "merge two": lambda model, out: merge_two(model, model, out),
    "convert": lambda model, out: convert(model, out, "control-llm"),
    "AutoModelForCausalLM": lambda model, out: AutoModelForCausalLM.from_pretrained(model),
    "CausalLMExpansion": lambda model, out: CausalLMExpansion.from_pretrained(model),
}
"""What reads an expanded checkpoint."""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Case().write(tmp_path / "model")


@pytest.fixture
def nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails a test as soon as a tensor is read, or transformers goes on to allocate the model."""

    def read(*_, **__):
        raise AssertionError("a tensor was read")

    monkeypatch.setattr(tensors, "_read", read)
    monkeypatch.setattr(PreTrainedModel, "from_pretrained", read)


def refuses(read: Callable[[Path, Path], object], model: Path, message: str) -> None:
    before = sorted(path.name for path in model.parent.iterdir())
    with pytest.raises(ValueError, match=message):
        read(model, model.parent / "out")
    assert sorted(path.name for path in model.parent.iterdir()) == before


def edit_config(directory: Path, **values) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def edit_tensors(directory: Path, edit: Callable[[dict[str, torch.Tensor]], None]) -> None:
    found = load_file(directory / "model.safetensors")
    edit(found)
    save_file(found, directory / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture(params=READERS)
def read(request, nothing_is_read) -> Callable[[Path, Path], object]:
    return READERS[request.param]


def test_missing_and_left_over(read, model):
    def rename(found):
        found["model.layers.1.factor"] = found.pop("model.layers.1.interpolation_factor")

    edit_tensors(model, rename)
    refuses(read, model, "missing: model.layers.1.interpolation_factor; left over: model.layers.1.factor")


def test_shapes_that_do_not_fit_the_config(read, model):
    edit_config(model, intermediate_size=50)
    refuses(read, model, r"misshapen: model.layers.0.mlp.down_proj.weight \[32, 48\] instead of \[32, 50\]")


def test_mixed_dtypes(read, model):
    def narrow(found):
        found["model.norm.weight"] = found["model.norm.weight"].bfloat16()

    edit_tensors(model, narrow)
    refuses(read, model, "mixed dtypes, where one is allowed; BF16: model.norm.weight; F32: lm_head.weight, ")


def test_a_dtype_that_weights_may_not_have(read, model):
    def integers(found):
        for name, tensor in found.items():
            found[name] = tensor.to(torch.int8)

    edit_tensors(model, integers)
    refuses(read, model, "the dtype is not one of F64, F32, F16, BF16; I8: ")


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_auto_map(read, model, file):
    if not (model / file).exists():
        (model / file).write_text("{}")
    values = json.loads((model / file).read_text())
    (model / file).write_text(json.dumps(values | {"auto_map": {"AutoConfig": "evil.Config"}}))
    refuses(read, model, "auto_map: not allowed; code from a checkpoint is never run")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "weights.pkl"])
def test_pickles_alone_are_refused(read, model, name):
    (model / "model.safetensors").rename(model / name)
    refuses(read, model, f"model.safetensors: no such file; .* Pickle files are never read: {name}")


def test_a_family_that_cannot_be_told(read, model):
    values = json.loads((model / "config.json").read_text())
    del values["mlp_bias"]
    (model / "config.json").write_text(json.dumps(values))
    refuses(read, model, "base_model_type: the base family cannot be told .*; allowed: llama, mistral, qwen2, qwen3")


def test_a_truncated_file(read, model):
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    refuses(read, model, "model.safetensors: cannot be read as safetensors, truncated perhaps")


def test_no_weights(read, model):
    (model / "model.safetensors").unlink()
    refuses(read, model, "model.safetensors: no such file; weights are read from model.safetensors, or the files in")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda index: index.pop("weight_map"), "not an index of safetensors files"),
        (lambda index: index["weight_map"].update(x="../other.safetensors"), "is not the name of a safetensors file"),
        (lambda index: index["weight_map"].update(x="pytorch_model.bin"), "is not the name of a safetensors file"),
        (lambda index: index["weight_map"].update(x="model-9.safetensors"), "model-9.safetensors: no such file"),
        (lambda index: index["weight_map"].update(x="model-00001-of-00006.safetensors"), "x is not in model-00001"),
        (lambda index: index["weight_map"].popitem(), "is in model-0000"),
    ],
)
@pytest.mark.parametrize("reader", ["inspect", "AutoModelForCausalLM"])
def test_a_bad_index(nothing_is_read, reader, model, edit, message):
    described = {name: tensors.lazy(tensor, "F32") for name, tensor in load_file(model / "model.safetensors").items()}
    (model / "model.safetensors").unlink()
    tensors.write_tensors(model, described, shard_bytes=40_000)
    assert len(list(model.glob("*.safetensors"))) == 6
    index = json.loads((model / tensors.INDEX).read_text())
    edit(index)
    (model / tensors.INDEX).write_text(json.dumps(index))
    refuses(READERS[reader], model, message)


def test_two_sets_of_weights(read, model):
    (model / tensors.INDEX).write_text(json.dumps({"weight_map": {}}))
    refuses(read, model, "holds both model.safetensors and model.safetensors.index.json")


def test_bad_bases_are_refused_by_expand(nothing_is_read, tiny_base, tmp_path):
    def refused(message: str) -> None:
        refuses(lambda model, out: expand(model, out, 2, "lerp"), tmp_path / "base", message)
        shutil.rmtree(tmp_path / "base")
        shutil.copytree(tiny_base, tmp_path / "base")

    shutil.copytree(tiny_base, tmp_path / "base")
    edit_config(tmp_path / "base", auto_map={"AutoModel": "evil.Model"})
    refused("auto_map: not allowed")
    edit_config(tmp_path / "base", hidden_size=40)
    refused("misshapen: ")
    edit_tensors(tmp_path / "base", lambda found: found.update(x=found.pop("model.norm.weight")))
    refused("missing: model.norm.weight; left over: x")
    edit_tensors(tmp_path / "base", lambda found: found.update({"model.norm.weight": torch.ones(32).half()}))
    refused("mixed dtypes, where one is allowed; F16: model.norm.weight")
    (tmp_path / "base/model.safetensors").rename(tmp_path / "base/pytorch_model.bin")
    refused("Pickle files are never read: pytorch_model.bin")
    edit_config(tmp_path / "base", model_type="gpt2")
    refused("model_type: 'gpt2' is not one of llama, mistral, qwen2, qwen3")
    (tmp_path / "base/config.json").write_text("{")
    refused("config.json: cannot be read as JSON")
    (tmp_path / "base/config.json").write_text("[]")
    refused("config.json: not a JSON object")


def test_pickles_beside_safetensors_are_warned_about(model, tmp_path, caplog):
    (model / "optimizer.pt").write_bytes(b"not even a pickle")
    (model / "training_args.bin").write_bytes(b"not even a pickle")
    with caplog.at_level(logging.WARNING):
        merge(model, tmp_path / "out")
    assert "never read: optimizer.pt, training_args.bin" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        AutoModelForCausalLM.from_pretrained(model)
    assert "never read: optimizer.pt, training_args.bin" in caplog.text
    assert sorted(path.suffix for path in (tmp_path / "out").iterdir()) == [".json", ".safetensors"]


# Hugging Face's own ways of loading


def test_a_family_is_named_by_keyword(tmp_path):
    case = Case(family="mistral")
    model = case.write(tmp_path / "model")
    with torch.inference_mode():
        wanted = AutoModelForCausalLM.from_pretrained(model)(IDS).logits
    values = json.loads((model / "config.json").read_text())
    del values["sliding_window"]
    (model / "config.json").write_text(json.dumps(values))
    for load in (AutoModelForCausalLM, CausalLMExpansion):
        with pytest.raises(ValueError, match="base_model_type: .* cannot be told"):
            load.from_pretrained(model)
        named = load.from_pretrained(model, base_model_type="mistral", control_scale=0.5)
        assert (named.config.base_model_type, named.control_scale) == ("mistral", 0.5)
        with torch.inference_mode():
            torch.testing.assert_close(named(IDS, control_scale=1.0).logits, wanted)
        with pytest.raises(ValueError, match="base_model_type: 'gpt2' is not one of llama"):
            load.from_pretrained(model, base_model_type="gpt2")
    with pytest.raises(ValueError, match="'qwen2' is named, but the checkpoint is of the family 'llama'"):
        AutoModelForCausalLM.from_pretrained(Case().write(tmp_path / "llama"), base_model_type="qwen2")


def test_pickles_cannot_be_asked_for(model):
    with pytest.raises(ValueError, match="use_safetensors: False is not allowed"):
        AutoModelForCausalLM.from_pretrained(model, use_safetensors=False)


def test_what_the_headers_cannot_show_is_refused_after_loading(model, monkeypatch):
    """As for a model of the hub, whose files are not there to be checked beforehand."""
    monkeypatch.setattr("cllm_model.loading._check", lambda *_: None)

    def rename(found):
        found["model.layers.1.factor"] = found.pop("model.layers.1.interpolation_factor")

    edit_tensors(model, rename)
    with pytest.raises(ValueError, match=r"missing_keys.*model.layers.1.interpolator.factor.*unexpected_keys"):
        AutoModelForCausalLM.from_pretrained(model)


def test_transformers_own_ways_of_loading_go_through(golden, tmp_path):
    directory = golden / "llama_concat_dlerp"
    loaded = AutoModelForCausalLM.from_pretrained(directory)
    with torch.inference_mode():
        wanted = loaded(IDS).logits
    given_config = CausalLMExpansion.from_pretrained(str(directory), config=loaded.config)
    given_tensors = CausalLMExpansion.from_pretrained(None, config=loaded.config, state_dict=loaded.state_dict())
    (tmp_path / "parent").mkdir()
    shutil.copytree(directory, tmp_path / "parent/inner")
    inner = CausalLMExpansion.from_pretrained(tmp_path / "parent", subfolder="inner")
    for model in (given_config, given_tensors, inner):
        with torch.inference_mode():
            torch.testing.assert_close(model(IDS).logits, wanted, rtol=0, atol=0)
    model, info = AutoModelForCausalLM.from_pretrained(directory, output_loading_info=True)
    assert (type(model), len(info["missing_keys"])) == (CausalLMExpansion, 0)
    assert AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16).dtype == torch.bfloat16
    backbone = ControlLLMModel.from_pretrained(directory, config=loaded.config)
    with torch.inference_mode():
        hidden = backbone(IDS).last_hidden_state
        torch.testing.assert_close(loaded.lm_head(hidden), wanted, rtol=0, atol=0)


def test_a_saved_model_is_loaded_again(tiny_base, tmp_path):
    """Sharded by transformers, with an index of its own."""
    expand(tiny_base, tmp_path / "dual", 2, "dlerp")
    model = ControlLLMForCausalLM.from_pretrained(tmp_path / "dual")
    model.save_pretrained(tmp_path / "saved", max_shard_size="40KB")
    assert len(list((tmp_path / "saved").glob("*.safetensors"))) > 2
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_gates_of_a_published_bf16_checkpoint_may_be_fp32(tmp_path, golden):
    """The authors' code makes its gates in fp32 beside a bf16 base, and saves them so."""
    directory = tmp_path / "published"
    shutil.copytree(golden / "llama_concat_dlerp", directory)
    file = directory / "model.safetensors"
    gates = (".interp_weight.",)
    tensors = {
        name: tensor if any(gate in name for gate in gates) else tensor.bfloat16()
        for name, tensor in load_file(file).items()
    }
    save_file(tensors, file, metadata={"format": "pt"})
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"torch_dtype": "bfloat16"}))
    model = AutoModelForCausalLM.from_pretrained(directory).eval()
    expected = load_file(golden / "llama_concat_dlerp" / "expected.safetensors")
    with torch.inference_mode():
        logits = model(expected["input_ids"]).logits
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert (logits - expected["logits"]).abs().max() < 0.15
