"""What does not work is refused when an engine starts; registering twice changes nothing."""

from types import SimpleNamespace

import pytest
from vllm import ModelRegistry

from cllm_model.vllm import ARCHITECTURES, register
from cllm_model.vllm.limits import refuse_unsupported


def config(**changes):
    plain = {
        "lora_config": None,
        "speculative_config": None,
        "kv_transfer_config": None,
        "use_v2_model_runner": False,
        "parallel_config": SimpleNamespace(enable_dbo=False, pipeline_parallel_size=1),
    }
    return SimpleNamespace(**plain | changes)


def test_a_plain_configuration_passes():
    refuse_unsupported(config())


@pytest.mark.parametrize(
    "option, changes",
    [
        ("--enable-lora", {"lora_config": object()}),
        ("--speculative-config", {"speculative_config": object()}),
        ("--kv-transfer-config", {"kv_transfer_config": object()}),
        ("VLLM_USE_V2_MODEL_RUNNER", {"use_v2_model_runner": True}),
        ("--enable-dbo", {"parallel_config": SimpleNamespace(enable_dbo=True, pipeline_parallel_size=1)}),
        ("--pipeline-parallel", {"parallel_config": SimpleNamespace(enable_dbo=False, pipeline_parallel_size=2)}),
    ],
)
def test_refused(option, changes):
    with pytest.raises(ValueError, match=option):
        refuse_unsupported(config(**changes))


def test_registering_twice():
    register()
    before = {name: ModelRegistry.models[name] for name in ARCHITECTURES}
    register()
    assert {name: ModelRegistry.models[name] for name in ARCHITECTURES} == before
