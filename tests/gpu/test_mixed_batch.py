"""The mixed batch on an accelerator: vLLM's V2 model runner, compiled, with CUDA graphs.

The model and the scenario are those of tests/vllm; Hugging Face's answers are computed on the CPU.
"""

import pytest
import torch

if not torch.cuda.is_available():
    pytest.skip("there is no CUDA device", allow_module_level=True)

from vllm.config import CUDAGraphMode

from tests import mixed_batch, tiny_models
from tests.greedy import load_hf
from tests.vllm_engines import start


@pytest.fixture(scope="module")
def dual(tmp_path_factory):
    directory = tmp_path_factory.mktemp("models")
    return tiny_models.write_dual(tiny_models.write_base(directory / "base"), directory / "dual")


@pytest.fixture(scope="module")
def engine(dual):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_USE_V2_MODEL_RUNNER", "1")
        patch.setenv("TRITON_F32_DEFAULT", "ieee")  # its attention kernels would round to tf32, and near ties be many
        yield start(dual, logits_processors=None, enforce_eager=False, **mixed_batch.TIGHT)


def test_mixed_batch(engine, dual):
    runner = engine.llm_engine.model_executor.driver_worker.worker.model_runner
    assert type(runner).__module__ == "vllm.v1.worker.gpu.model_runner"
    assert engine.llm_engine.vllm_config.compilation_config.cudagraph_mode is not CUDAGraphMode.NONE
    requests, hf = mixed_batch.sixteen(len(tiny_models.VOCABULARY)), load_hf(dual)
    lone = mixed_batch.alone(engine, requests)
    for found in mixed_batch.twice(engine, requests):
        mixed_batch.check(found, hf, requests, lone)
    assert engine.reset_prefix_cache()
    assert mixed_batch.wrong(hf, requests, mixed_batch.stream(engine, requests, salted=False).answers)
