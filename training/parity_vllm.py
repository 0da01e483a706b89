"""Log-probabilities that vLLM gives the tokens of a checkpoint's prompts, as a process of its own.

`python -m training.parity_vllm DIRECTORY < REQUEST > ANSWER`, in JSON. The request is `{"tokens": [[…], …], "scales":
[…]}`. The answer is `{"log_probabilities": …}` with those of each token but the first, by scale and prompt, or
`{"refused": …}` with the reason why vLLM cannot run such a checkpoint. A plain checkpoint takes no notice of the scale.
`training.parity` starts it; nothing in `training` imports it, for it imports vllm.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # one process, which ends as a whole
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")  # vLLM would bind to a core that others may use
os.environ["VLLM_LOGGING_LEVEL"] = "ERROR"

from vllm import LLM, EngineArgs, SamplingParams

import cllm_model  # noqa: F401 - registers the config
from cllm_model.checkpoint import CONTROL_LLM_TYPES
from cllm_model.vllm import register
from cllm_model.vllm.dial import dial_options
from cllm_model.vllm.limits import refuse_head_size, refuse_unsupported
from cllm_model.vllm.request import cache_salt, with_scale
from cllm_model.vllm.stack import hf_overrides


def engine_options(directory: Path, max_model_len: int) -> dict[str, Any]:
    """Options of an engine that computes in fp32 what Hugging Face does.

    Raises:
        ValueError: vLLM cannot run this checkpoint.
    """
    register()
    options: dict[str, Any] = {
        "dtype": "float32",
        "enforce_eager": True,
        "max_model_len": max_model_len,
        "kv_cache_memory_bytes": 2**28,
        "hf_overrides": hf_overrides(directory),
    }
    config = EngineArgs(model=str(directory), **options).create_engine_config()
    refuse_head_size(config.model_config)
    if config.model_config.hf_config.model_type in CONTROL_LLM_TYPES:
        refuse_unsupported(config)
        options |= dial_options(config)
    return options


def _of(llm: LLM, prompt: list[int], scale: float) -> list[float]:
    params = SamplingParams(
        max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False, extra_args=with_scale(None, scale)
    )
    asked: Any = {"prompt_token_ids": prompt, "cache_salt": cache_salt(scale)}
    [output] = llm.generate([asked], params, use_tqdm=False)
    assert output.prompt_logprobs is not None
    steps: list[Any] = list(output.prompt_logprobs[1:])
    return [step[token].logprob for step, token in zip(steps, prompt[1:], strict=True)]


def main() -> None:
    """Answer the request on standard input; what vLLM prints goes to standard error."""
    answer = os.dup(1)
    os.dup2(2, 1)
    request = json.load(sys.stdin)
    directory, tokens = Path(sys.argv[1]), request["tokens"]
    found: dict[str, Any]
    try:
        options = engine_options(directory, max(map(len, tokens)) + 1)
    except ValueError as error:
        found = {"refused": str(error)}
    else:
        llm = LLM(str(directory), **options)
        scales = request["scales"]
        found = {"log_probabilities": [[_of(llm, prompt, scale) for prompt in tokens] for scale in scales]}
    with os.fdopen(answer, "w") as out:
        json.dump(found, out)


if __name__ == "__main__":
    main()
