"""A server under three times the load that it takes, for minutes, with clients that misbehave; then its engine dies.

    python benchmarks/load.py [--minutes 5] [--streams 64]

Starts `cllm serve demo/model` with room for `--streams` requests and lets three times as many clients ask it without a
pause, at random: chats and completions, whole and streamed, at five control scales said by model id or by field. A
third of the requests leaves early, is malformed or too large, and every eighth client reads slowly. All answers are
compared with Hugging Face's greedy tokens. The KV cache is too small for all of them, so requests are preempted.

Ends with 1 if anything was wrong: an answer, a status, a request without an end, refusals that take their time, KV
blocks that stay taken, memory or file descriptors that grow; or if clients or a supervisor could take an engine that
was killed for one that works. Linux only.
"""

import argparse
import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import httpx
import torch
from common.servers import Server, free_port, running, until
from load_test.clients import DEADLINE_S, Client, Target
from load_test.kill import kill_engine
from load_test.reference import SCALES, Reference
from load_test.report import Run, Samples, faults, refusals_in, table

MODEL = Path(__file__).parents[1] / "demo" / "model"
NAME = "demo"
OVERLOAD = 3
SLOW = 8  # every so many clients one that reads slowly
KV_BYTES_PER_STREAM = 5 * 2**17  # about 2 blocks of the demo model, where a request needs 1 to 7, some of them shared
SAMPLE_S = 5
DELAY_S = 0.05
SETTLE_S = 30
_GAUGES = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc", "num_preemptions_total")


def gauges(http: httpx.Client) -> dict[str, float]:
    """Return vLLM's own figures."""
    lines = [line.split() for line in http.get("/metrics").text.splitlines()]
    return {name: sum(float(line[-1]) for line in lines if line[0].startswith(f"vllm:{name}{{")) for name in _GAUGES}


def is_idle(http: httpx.Client) -> bool:
    """Whether the engine holds no request and no KV block."""
    now = gauges(http)
    return not any(now[name] for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"))


async def load(server: Server, target: Target, streams: int, seconds: float) -> Samples:
    """Let the clients ask for a time, and look at the server meanwhile."""
    end = time.monotonic() + seconds
    samples = Samples()
    clients = [Client(target, seed, slow=seed % SLOW == 0) for seed in range(OVERLOAD * streams)]
    tasks = [asyncio.create_task(client.run(end)) for client in clients]
    tasks.append(asyncio.create_task(_watch_delays(samples, end)))
    with httpx.Client(base_url=server.root, verify=False, timeout=DEADLINE_S) as http:
        while time.monotonic() < end - SAMPLE_S:
            await asyncio.sleep(SAMPLE_S)
            samples.open_requests.append(target.open_requests)
            samples.usage.append(await asyncio.to_thread(server.usage))
            samples.gauges.append(await asyncio.to_thread(gauges, http))
            samples.load_average.append(os.getloadavg()[0])
    await asyncio.gather(*tasks)
    return samples


async def _watch_delays(samples: Samples, end: float) -> None:
    while (begun := time.monotonic()) < end:
        await asyncio.sleep(DELAY_S)
        samples.delays.append(time.monotonic() - begun - DELAY_S)


def main() -> int:
    """Run both phases; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--streams", type=int, default=64)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end the servers too
    torch.set_num_threads(1)
    reference = Reference(MODEL)
    print(f"a prompt has {reference.distinct:.1f} different answers at {len(SCALES)} scales, on average\n", flush=True)
    port = free_port()
    command = ["-m", "cllm", "serve", str(MODEL), "--name", NAME, "--port", str(port)]
    command += ["--max-queue", str(options.streams), "--max-num-seqs", str(options.streams)]
    command += ["--kv-cache-memory-bytes", str(options.streams * KV_BYTES_PER_STREAM)]
    with running(command, port, "/ready") as server, httpx.Client(base_url=server.root, verify=False) as http:
        target = Target(server.root, NAME, http.get("/v1/control").json()["checkpoint"], reference)
        before = server.usage()
        samples = asyncio.run(load(server, target, options.streams, 60 * options.minutes))
        idle = until(lambda: is_idle(http), SETTLE_S)
        until(lambda: server.usage().files <= before.files, SETTLE_S)  # connections take a moment to close
        after = server.usage()
        kill = asyncio.run(kill_engine(server, NAME))
        run = Run(options.streams, target.outcomes, samples, refusals_in(server.log), before, after, idle, kill)
    print(*table(run), sep="\n")
    return any(faults(run))


if __name__ == "__main__":
    sys.exit(main())
