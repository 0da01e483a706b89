"""This server, plain vLLM and `transformers serve` under 1, 8 and 32 streams; then one dual engine against two.

    python benchmarks/serving.py [--quick] [--requests 2] [--rounds 3]

Builds a base of 75.5 M parameters and its expansion (4 of 8 layers, dlerp) and starts three servers: `cllm serve` on
the expansion, vLLM's own OpenAI server without our plugins on the base, and `transformers serve` on the expansion. All
of them: fp32, eager, one thread for the model, prompts of 32 tokens that no cache has seen, 32 greedy tokens.

Only one is asked at a time, and they take turns, round after round, so that a busy machine slows all of them alike; a
figure is the median of the rounds, a ratio the median of the rounds' own ratios, times are over all requests.

Second part: half of the streams ask for the base, half for the trained model. Once the expansion's engine answers both,
once it answers the trained half and vLLM the base half; both engines compute on the same one core. Linux only.
"""

import argparse
import asyncio
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from common.figures import quantiles
from common.models import build, write_tokenizer
from common.servers import Server, free_port, running
from common.streams import Target, Timing, prompts, run

PROMPT = 32
ENGINE = ["--dtype", "float32", "--enforce-eager", "--max-model-len", "256", "--max-num-seqs", "32"]
ENGINE += ["--block-size", "32", "--kv-cache-memory-bytes", str(2**28)]
VLLM_SERVER = ["-m", "vllm.entrypoints.launchers.api_server.entry", "--disable-uvicorn-access-log"]
TRANSFORMERS_SERVER = [str(Path(__file__).parent / "common" / "serve_transformers.py"), "serve"]
ONE_THREAD = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_NO_USAGE_STATS": "1"}
OURS, VLLM, TRANSFORMERS = "cllm serve, dual", "vLLM, base", "transformers serve, dual"
ONE, TWO = "one dual engine", "two engines"
CORE = 0
IDLE_S = 3


class Bench:
    """The servers, and the rounds that were run on them.

    Args:
        requests: Requests of each stream in a round.
        rounds: Number of rounds.
        tokens: Tokens of an answer.
    """

    def __init__(self, requests: int, rounds: int, tokens: int) -> None:
        self._requests = requests
        self._rounds = rounds
        self._tokens = tokens
        self._seed = 0

    def compare(self, contenders: dict[str, Sequence[Target]], streams: int) -> dict[str, list[Timing]]:
        """Let the contenders answer the same prompts in turn, other ones in each round."""
        rounds: dict[str, list[Timing]] = {name: [] for name in contenders}
        for _ in range(self._rounds):
            self._seed += 1
            asked = prompts(self._seed, streams * self._requests, PROMPT)
            for name, targets in contenders.items():
                rounds[name].append(asyncio.run(run(targets, asked, streams, self._tokens)))
        return rounds

    def warm_up(self, contenders: dict[str, Sequence[Target]], streams: int) -> None:
        """Let each contender answer short requests of the shapes to come."""
        self._seed += 1
        asked = prompts(self._seed, streams, PROMPT)
        for targets in contenders.values():
            asyncio.run(run(targets, asked, streams, self._tokens // 4))


def start(stack: ExitStack, command: Sequence[str], ready: str = "/health", **variables: str) -> Server:
    """Start a server that ends with the stack."""
    port = free_port()
    return stack.enter_context(running([*command, "--port", str(port)], port, ready, ONE_THREAD | variables))


def throughput(timing: Timing) -> float:
    """Return tokens per second."""
    return timing.tokens / timing.seconds


def report(streams: int, rounds: dict[str, list[Timing]]) -> None:
    """Print a line for each contender; ratios are to the first one."""
    first, *_ = rounds.values()
    for name, timings in rounds.items():
        rate = statistics.median(map(throughput, timings))
        ratio = statistics.median(throughput(a) / throughput(b) for a, b in zip(timings, first, strict=True))
        begin = milliseconds([seconds for timing in timings for seconds in timing.first])
        step = milliseconds([seconds for timing in timings for seconds in timing.next])
        print(f"| {streams} | {name} | {rate:.1f} | {ratio:.2f} | {begin} | {step} |", flush=True)


def milliseconds(seconds: Sequence[float]) -> str:
    """Return p50 and p99 in milliseconds."""
    half, most, _ = quantiles(seconds)
    return f"{1000 * half:.0f} / {1000 * most:.0f}"


def header(title: str) -> None:
    """Print the head of a table; the last two columns are milliseconds, p50 / p99."""
    print(f"\n{title}\n\n| streams | what | tokens/s | of the first | first token, ms | next token, ms |")
    print("|---|---|---|---|---|---|")


def idle_share(servers: Sequence[Server]) -> float:
    """Return the cores that servers keep busy which nobody asks."""
    before = sum(server.usage().cpu for server in servers)
    time.sleep(IDLE_S)
    return (sum(server.usage().cpu for server in servers) - before) / IDLE_S


def weight_bytes(model: Path) -> int:
    """Return the size of a checkpoint's weights."""
    return sum(file.stat().st_size for file in model.glob("*.safetensors"))


def mib(size: float) -> str:
    """Return a size in MiB."""
    return f"{size / 2**20:.0f} MiB"


def main() -> None:
    """Run both parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="only to see that it works")
    parser.add_argument("--requests", type=int, default=2, help="requests of each stream in a round")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end the servers too
    levels = (1, 4) if options.quick else (1, 8, 32)
    bench = Bench(1, 1, 8) if options.quick else Bench(options.requests, options.rounds, 32)
    torch.set_num_threads(1)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        models = build(directory, torch.float32)
        for model in models.values():
            write_tokenizer(model)
        base, dual = str(models["base"]), str(models["dual"])

        ours = start(stack, ["-m", "cllm", "serve", dual, "--name", "dual", *ENGINE], "/ready")
        trained, as_base = Target(ours.root, "dual"), Target(ours.root, "dual:base")
        bench.warm_up({ONE: [trained, as_base]}, levels[-1])
        alone = ours.usage()
        plain = start(stack, [*VLLM_SERVER, "--model", base, "--served-model-name", "base", *ENGINE], VLLM_PLUGINS="")
        plain_base = Target(plain.root, "base")
        bench.warm_up({VLLM: [plain_base]}, levels[-1])
        both = ours.usage(), plain.usage()

        with ExitStack() as first_part:
            slow = start(first_part, [*TRANSFORMERS_SERVER, dual, "--device", "cpu", "--dtype", "float32"])
            contenders = {OURS: [trained], VLLM: [plain_base], TRANSFORMERS: [Target(slow.root, dual)]}
            bench.warm_up({TRANSFORMERS: contenders[TRANSFORMERS]}, levels[-1])
            header(f"{PROMPT} prompt tokens, load average {os.getloadavg()[0]:.1f} before")
            for streams in levels:
                report(streams, bench.compare(contenders, streams))
            print(f"\nload average {os.getloadavg()[0]:.1f} after; idle, the three servers take ", end="")
            print(f"{idle_share([ours, plain, slow]):.2f} cores together")

        for server in (ours, plain):
            server.pin_engine(CORE)
        header("base and trained model in turn, all engines on one core")
        for streams in levels[1:]:
            contenders = {ONE: [as_base, trained], TWO: [plain_base, trained]}
            report(streams, bench.compare(contenders, streams))
        print(f"\nmemory of {ONE}: {mib(alone.proportional)} ({mib(weight_bytes(models['dual']))} of weights)")
        print(f"memory of {TWO}: {mib(sum(usage.proportional for usage in both))} ", end="")
        print(f"({mib(sum(map(weight_bytes, models.values())))} of weights)")


if __name__ == "__main__":
    main()
