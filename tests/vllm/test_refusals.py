"""What does not work is refused when an engine starts; registering twice changes nothing."""

from types import SimpleNamespace

import pytest
from vllm import ModelRegistry
from vllm.config import CompilationMode

from cllm_model.vllm import ARCHITECTURES, register
from cllm_model.vllm.limits import refuse_unsupported
from tests import tiny_models
from tests.vllm_engines import start


def config(**changes):
    """What the refusals read of an engine's configuration."""
    parallel = {
        "enable_dbo": False,
        "use_ubatching": False,
        "prefill_context_parallel_size": 1,
        "pipeline_parallel_size": 1,
    }
    parallel = {name: changes.pop(name, value) for name, value in parallel.items()}
    model = {"base_model_type": "llama", "layer_types": None, "attention_bias": False}
    model = {name: changes.pop(name, value) for name, value in model.items()}
    plain = {
        "lora_config": None,
        "speculative_config": None,
        "kv_transfer_config": None,
        "parallel_config": SimpleNamespace(**parallel),
        "compilation_config": SimpleNamespace(mode=changes.pop("mode", CompilationMode.NONE)),
        "model_config": SimpleNamespace(
            hf_config=SimpleNamespace(**model), enable_sleep_mode=changes.pop("enable_sleep_mode", False)
        ),
    }
    return SimpleNamespace(**plain | changes)


MIXED = ["full_attention", "sliding_attention"]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"pipeline_parallel_size": 2, "mode": CompilationMode.DYNAMO_TRACE_ONCE},
        {"attention_bias": True, "layer_types": MIXED},
        {"base_model_type": "qwen2", "layer_types": MIXED[1:] * 2},
    ],
)
def test_what_works_passes(changes):
    refuse_unsupported(config(**changes))


@pytest.mark.parametrize(
    "option, changes",
    [
        ("--enable-lora", {"lora_config": object()}),
        ("--speculative-config", {"speculative_config": object()}),
        ("--kv-transfer-config", {"kv_transfer_config": object()}),
        ("--enable-sleep-mode", {"enable_sleep_mode": True}),
        ("--enable-dbo", {"enable_dbo": True, "use_ubatching": True}),
        ("--ubatch-size", {"use_ubatching": True}),
        ("--prefill-context-parallel-size", {"prefill_context_parallel_size": 2}),
        ("--pipeline-parallel-size", {"pipeline_parallel_size": 2}),
        ("layer_types", {"base_model_type": "qwen2", "layer_types": MIXED}),
        ("layer_types", {"base_model_type": "qwen3", "layer_types": MIXED}),
        ("attention_bias", {"base_model_type": "qwen3", "attention_bias": True}),
    ],
)
def test_refused(option, changes):
    with pytest.raises(ValueError, match=option):
        refuse_unsupported(config(**changes))


def test_refused_by_a_real_engine(tmp_path):
    """The refusal reaches whoever starts the engine, from vLLM's own configuration."""
    base = tiny_models.write_base(
        tmp_path / "base", family="qwen2", use_sliding_window=True, max_window_layers=2, sliding_window=24
    )
    with pytest.raises(ValueError, match="layer_types"):
        start(tiny_models.write_dual(base, tmp_path / "dual"))


def test_registering_twice():
    register()
    before = {name: ModelRegistry.models[name] for name in ARCHITECTURES}
    register()
    assert {name: ModelRegistry.models[name] for name in ARCHITECTURES} == before
