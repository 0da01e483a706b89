"""Step time of a dual-branch model in vLLM against its plain base and against Hugging Face, on one CPU thread.

    python benchmarks/dual_vs_base.py [--dtype float32] [--rounds 5] [--steps 24]

Builds a random base of about 75 M parameters on disk, expands four of its eight layers, extracts the base again, and
times one decode step of each at batch 1 and 16. A step is the time between two tokens of a running batch: the median
over all steps, so that prefill and start do not count. The contenders take turns, round after round, so that a busy
machine slows all of them alike; a ratio is the median of the rounds' own ratios. Weight bytes predict the ratio of a
machine that only reads weights: what each step reads, dual over base. Of the embedding table a step reads a few rows.
"""

import argparse
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "HF_HUB_OFFLINE": "1"}
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

import torch
from common.models import build
from transformers import AutoModelForCausalLM
from transformers.cache_utils import DynamicCache
from vllm import LLM, SamplingParams

from cllm_model import checkpoint
from cllm_model.vllm import register
from cllm_model.vllm.dial import TAP, TRUST
from cllm_model.vllm.request import cache_salt, with_scale

BATCHES = (1, 16)
PROMPT = 32
Step = Callable[[], list[float]]
"""Runs a batch and returns the seconds of its decode steps."""


def weight_bytes(directory: Path, dtype: torch.dtype) -> int:
    """Bytes of weights that a decode step reads."""
    headers = checkpoint.read_headers(directory)
    read = [math.prod(info.shape) for name, info in headers.items() if "embed_tokens" not in name]
    return dtype.itemsize * sum(read)


def vllm_step(path: Path, batch: int, dtype: str, steps: int, scale: float | None) -> Step:
    """Time vLLM by stepping its engine: one call of `step` is one forward pass of the batch."""
    engine = LLM(
        str(path),
        dtype=dtype,
        enforce_eager=True,
        block_size=32,
        max_model_len=256,
        max_num_seqs=max(BATCHES),
        kv_cache_memory_bytes=2**28,
        skip_tokenizer_init=True,
        enable_prefix_caching=False,
        logits_processors=None if scale is None else [TAP],
        additional_config={TRUST: scale is not None},
    ).llm_engine
    engines.append(engine)
    params = SamplingParams(temperature=0.0, max_tokens=steps + 2, ignore_eos=True, detokenize=False)
    prompt: dict[str, object] = {}
    if scale is not None:
        params.extra_args = with_scale(None, scale)
        prompt["cache_salt"] = cache_salt(scale)

    def run() -> list[float]:
        for index in range(batch):
            engine.add_request(str(time.monotonic_ns()), prompt | {"prompt_token_ids": [index + 3] * PROMPT}, params)
        seconds = []
        while engine.has_unfinished_requests():
            started = time.perf_counter()
            engine.step()
            seconds.append(time.perf_counter() - started)
        return seconds[1:-1]  # without prefill and the last, which also ends the requests

    return run


def hf_step(path: Path, batch: int, dtype: torch.dtype, steps: int) -> Step:
    """Time the Hugging Face dual-branch model, greedy, with its cache."""
    model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype).eval()

    @torch.inference_mode()
    def run() -> list[float]:
        cache = DynamicCache(config=model.config)
        ids = torch.arange(3, batch + 3)[:, None].expand(batch, PROMPT)
        seconds = []
        for _ in range(steps + 1):
            started = time.perf_counter()
            ids = model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1:].argmax(-1)
            seconds.append(time.perf_counter() - started)
        return seconds[1:]

    return run


engines: list[object] = []
"""Keeps engines until the end: one that ends takes along what vLLM shares between engines of a process."""


def main() -> None:
    """Build, time, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=24)
    options = parser.parse_args()
    dtype = getattr(torch, options.dtype)
    register()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as directory:
        paths = build(Path(directory), dtype)
        read = {name: weight_bytes(path, dtype) for name, path in paths.items()}
        contenders: dict[tuple[str, int], Step] = {}
        for batch in BATCHES:
            contenders["base", batch] = vllm_step(paths["base"], batch, options.dtype, options.steps, None)
            contenders["dual", batch] = vllm_step(paths["dual"], batch, options.dtype, options.steps, 1.0)
            contenders["HF dual", batch] = hf_step(paths["dual"], batch, dtype, options.steps)
        for run in contenders.values():
            run()  # warm-up
        rounds: dict[tuple[str, int], list[float]] = {name: [] for name in contenders}
        for _ in range(options.rounds):
            for name, run in contenders.items():
                rounds[name].append(statistics.median(run()))
    report(options, read, rounds)


def report(options: argparse.Namespace, read: dict[str, int], rounds: dict[tuple[str, int], list[float]]) -> None:
    """Print the table; a ratio is the median of the rounds' ratios."""

    def ratio(over: str, under: str, batch: int) -> float:
        pairs = zip(rounds[over, batch], rounds[under, batch], strict=True)
        return statistics.median(a / b for a, b in pairs)

    print(
        f"\n{options.dtype}, 1 thread, eager, {PROMPT} prompt tokens; medians of {options.rounds} interleaved rounds "
        f"of {options.steps} steps\nweights read per step: base {read['base'] / 1e6:.0f} MB, dual "
        f"{read['dual'] / 1e6:.0f} MB; they predict dual/base = {read['dual'] / read['base']:.3f}\n\n"
        f"{'batch':>5}{'base ms':>10}{'dual ms':>10}{'HF dual ms':>12}"
        f"{'dual/base':>11}{'HF dual/base':>14}{'HF dual/dual':>14}"
    )
    for batch in BATCHES:
        base, dual, hf = (1000 * statistics.median(rounds[name, batch]) for name in ("base", "dual", "HF dual"))
        print(
            f"{batch:>5}{base:>10.2f}{dual:>10.2f}{hf:>12.2f}{ratio('dual', 'base', batch):>11.3f}"
            f"{ratio('HF dual', 'base', batch):>14.3f}{ratio('HF dual', 'dual', batch):>14.3f}"
        )


if __name__ == "__main__":
    main()
