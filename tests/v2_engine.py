"""The mixed batch on vLLM's V2 model runner, on a CPU, in a process of its own: `python -m tests.v2_engine MODEL OUT`.

The V2 runner is GPUs' own, but only its kernels need one, and Triton has an interpreter for them. The model is made to
read its scales as a replayed CUDA graph does: from the memory that the model state named before the first request, not
from what it is called with. OUT is a JSON file of the answers and the counts of one pass.
"""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ["VLLM_USE_V2_MODEL_RUNNER"] = "1"
os.environ["TRITON_INTERPRET"] = "1"

import triton.backends

# Of a CPU build, vLLM asks whether Triton has a backend for CPUs; it uses nothing of it that the interpreter lacks.
triton.backends.backends["cpu"] = SimpleNamespace(driver=None)  # type: ignore[assignment]

from tests import mixed_batch, tiny_models  # noqa: E402
from tests.vllm_engines import start  # noqa: E402


def main() -> None:
    model, out = map(Path, sys.argv[1:])
    engine = start(model, logits_processors=None, **mixed_batch.TIGHT)
    runner = engine.llm_engine.model_executor.driver_worker.worker.model_runner
    captured = runner.model_state.prepare_dummy_inputs(runner.max_num_reqs, runner.max_num_tokens)["scale"]

    def replay(_: Any, args: tuple[Any, ...], inputs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        assert inputs["scale"].data_ptr() == captured.data_ptr()  # piecewise graphs are called, and expect it there
        return args, inputs | {"scale": captured[: len(inputs["scale"])]}

    runner.model.register_forward_pre_hook(replay, with_kwargs=True)
    found = mixed_batch.stream(engine, mixed_batch.sixteen(len(tiny_models.VOCABULARY)))
    assert engine.reset_prefix_cache()
    out.write_text(json.dumps({"runner": type(runner).__module__, **found._asdict()}))


if __name__ == "__main__":
    main()
