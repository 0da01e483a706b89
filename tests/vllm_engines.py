"""vLLM engines in the test process, and greedy answers compared with Hugging Face's logits.

Set the environment before vllm is imported: importing this module does. A first engine costs the import of vllm (half
a minute), a further one about five seconds.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
os.environ.setdefault("VLLM_USE_AOT_COMPILE", "0")  # inductor's own cache saves a second run most of the compilation

import torch
from vllm import LLM, SamplingParams

from cllm_model.vllm import register
from cllm_model.vllm.dial import TAP, TRUST
from cllm_model.vllm.request import cache_salt, with_scale
from cllm_model.vllm.stack import hf_overrides

BLOCK = 32
OPTIONS: dict[str, Any] = {
    "dtype": "float32",
    "enforce_eager": True,
    "block_size": BLOCK,
    "max_model_len": 256,
    "max_num_seqs": 32,
    "kv_cache_memory_bytes": 2**26,
    "disable_log_stats": False,
    "logits_processors": [TAP],
    "additional_config": {TRUST: True},
}
"""Engine options that suit a tiny model in a test."""


@dataclass(frozen=True)
class Answer:
    tokens: list[int]
    logprobs: list[dict[int, float]]
    prompt_logprobs: list[dict[int, float]]
    cached: int


_started: list[LLM] = []
"""Keeps engines until the process ends: one that ends takes along what vLLM shares between engines of a process."""


def start(path: Path, **options: Any) -> LLM:
    """Start an engine, and keep it."""
    register()
    engine = LLM(
        str(path),
        **{**OPTIONS, "hf_overrides": hf_overrides(path), **options},
    )
    return keep(engine)


def keep(engine: LLM) -> LLM:
    """Keep an engine until the process ends."""
    # At exit, each would tidy up by collecting garbage several times over all that the others hold: minutes, for many.
    engine.llm_engine.engine_core._finalizer.atexit = False
    _started.append(engine)
    return engine


def prompts(count: int, vocabulary: int, seed: int = 0) -> list[list[int]]:
    """Prompts of 4 to 90 tokens; every other one starts with the same two blocks."""
    generator = torch.Generator().manual_seed(seed)

    def tokens(length: int) -> list[int]:
        return torch.randint(3, vocabulary, (length,), generator=generator).tolist()

    shared = tokens(2 * BLOCK)
    lengths = torch.randint(4, 27, (count,), generator=generator).tolist()
    return [(shared if i % 2 else []) + tokens(length) for i, length in enumerate(lengths)]


def generate(
    llm: LLM,
    asked: Sequence[list[int]],
    scales: Sequence[float] | None = None,
    tokens: int = 64,
    logprobs: int | None = None,
    salted: bool = True,
) -> list[Answer]:
    """Greedy answers, all prompts in one batch, each at its own scale; no scales: as plain vLLM would be asked."""
    params = SamplingParams(
        temperature=0.0, max_tokens=tokens, ignore_eos=True, detokenize=False,
        logprobs=logprobs, prompt_logprobs=logprobs,
    )  # fmt: skip
    inputs: list[Any] = [{"prompt_token_ids": prompt} for prompt in asked]
    all_params = [params.clone() for _ in asked]
    for index, scale in enumerate(scales or ()):
        all_params[index].extra_args = with_scale(None, scale)
        if salted:
            inputs[index]["cache_salt"] = cache_salt(scale)
    outputs = llm.generate(inputs, all_params, use_tqdm=False)
    return [
        Answer(
            list(output.outputs[0].token_ids),
            _plain(output.outputs[0].logprobs),
            _plain((output.prompt_logprobs or [])[1:]),
            output.num_cached_tokens or 0,
        )
        for output in outputs
    ]


def _plain(steps: Any) -> list[dict[int, float]]:
    return [{token: entry.logprob for token, entry in step.items()} for step in steps or ()]


def tokens_of(answers: Sequence[Answer]) -> list[list[int]]:
    return [answer.tokens for answer in answers]


def counter(llm: LLM, name: str) -> int:
    """What the engine itself counts."""
    return next(metric.value for metric in llm.get_metrics() if metric.name == f"vllm:{name}")
