"""What a load test found: what counts as wrong, and the table of figures."""

import json
import statistics
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

from common.figures import quantiles
from common.servers import Usage
from load_test.clients import Outcome
from load_test.kill import Kill

REFUSAL_S = 1.0
"""Time within which the server must have sent 99 % of its refusals, by its own clock."""
GROWTH = 0.01
"""Share by which resident memory may grow from the fourth to the last fifth of the time, means over each."""
GROWTH_SAMPLES = 30
"""Fewer samples than these lie in the time in which caches fill; growth is then printed and not judged."""
COMPARED = 0.95
"""Share of the answers' tokens that must be compared, those after near ties being left out."""
_SHOWN = 20


@dataclass
class Samples:
    """What was seen of server and clients, every few seconds, under load.

    Args:
        usage: What the server's processes held.
        gauges: vLLM's own figures.
        open_requests: Requests without an end.
        load_average: Processes that wanted to run on this machine, over the last minute.
        delays: Seconds by which the clients' own event loop was late.
    """

    usage: list[Usage] = field(default_factory=list)
    gauges: list[dict[str, float]] = field(default_factory=list)
    open_requests: list[int] = field(default_factory=list)
    load_average: list[float] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)

    def resident(self) -> list[float]:
        """Return the mean resident memory of each fifth of the time, in MiB."""
        size = max(1, len(self.usage) // 5)
        fifths = [self.usage[index * size : (index + 1) * size] for index in range(5)]
        return [statistics.mean(usage.resident for usage in fifth) / 2**20 for fifth in fifths if fifth]


@dataclass(frozen=True)
class Run:
    """A load test.

    Args:
        streams: Requests that the server takes at a time.
        outcomes: How each request ended.
        samples: What was seen meanwhile.
        server_seconds: Time that the server took for each refusal, by its access log.
        before: What its processes held before the load.
        after: What they held at its end.
        idle: Whether no request and no KV block was left in the engine.
        kill: What happened when its engine was killed.
    """

    streams: int
    outcomes: list[Outcome]
    samples: Samples
    server_seconds: list[float]
    before: Usage
    after: Usage
    idle: bool
    kill: Kill

    def seconds(self, kind: str) -> list[float]:
        """Return the times of answers of a kind."""
        return [outcome.seconds for outcome in self.outcomes if outcome.kind == kind and outcome.verdict.compared]

    @property
    def refusals(self) -> list[float]:
        """Times to a refusal for want of a place, as the clients saw them."""
        return [outcome.seconds for outcome in self.outcomes if outcome.verdict.status == HTTPStatus.TOO_MANY_REQUESTS]

    @property
    def tokens(self) -> tuple[int, int]:
        """Tokens that were compared, and those that were cut after a near tie."""
        verdicts = [outcome.verdict for outcome in self.outcomes]
        return sum(verdict.compared for verdict in verdicts), sum(verdict.cut for verdict in verdicts)


def refusals_in(log: Path) -> list[float]:
    """Return how long the server took for each refusal for want of a place, by its own clock."""
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith('{"time"')]
    return [line["seconds"] for line in lines if line["status"] == HTTPStatus.TOO_MANY_REQUESTS]


def faults(run: Run) -> Iterator[str]:
    """Yield everything that was wrong."""
    for outcome in run.outcomes:
        if outcome.verdict.fault:
            yield f"{outcome.kind}: {outcome.verdict.fault}"
    yield from run.kill.faults
    compared, cut = run.tokens
    if compared < COMPARED * (compared + cut):
        yield f"only {compared} of {compared + cut} tokens were compared"
    if not run.refusals or statistics.median(run.samples.open_requests) < run.streams:
        yield "the server was not under the load that was meant"
    if (late := quantiles(run.server_seconds)[1]) > REFUSAL_S:
        yield f"1 % of the refusals took the server more than {late:.2f} s"
    if not run.idle:
        yield "requests or KV blocks are left behind"
    resident = run.samples.resident()
    if len(run.samples.usage) >= GROWTH_SAMPLES and resident[4] > (1 + GROWTH) * resident[3]:
        yield f"resident memory grew: {resident} MiB"
    if run.after.files > run.before.files:
        yield f"file descriptors: {run.before.files} before, {run.after.files} after"


def times(values: list[float]) -> str:
    """Return p50, p99 and the largest of some seconds."""
    return " / ".join(f"{value:.3f}" for value in quantiles(values)) + " s"


def table(run: Run) -> Iterator[str]:
    """Yield the lines of a table of all figures, and what was wrong."""
    rows: dict[str, object] = {}
    for status, count in sorted(Counter(outcome.verdict.status for outcome in run.outcomes).items()):
        rows[f"requests with status {status}" if status else "requests left before a status"] = count
    for kind, count in sorted(Counter(outcome.kind for outcome in run.outcomes if outcome.verdict.compared).items()):
        rows[f"compared: {kind}"] = count
    rows["tokens compared; cut after a near tie"] = "; ".join(map(str, run.tokens))
    wrong = list(faults(run))
    rows["wrong answers, hangs and all other faults"] = len(wrong)
    samples, kill = run.samples, run.kill
    rows["requests open at a time, median"] = statistics.median(samples.open_requests)
    for name in samples.gauges[0]:
        seen = [gauges[name] for gauges in samples.gauges]
        rows[f"vllm:{name}, median; largest"] = f"{statistics.median(seen):.2f}; {max(seen):.2f}"
    rows["time to a 429, p50 / p99 / largest, by the server's log"] = times(run.server_seconds)
    rows["… as the clients saw it"] = times(run.refusals)
    rows["… of which the clients' own event loop was late by"] = times(samples.delays)
    for kind in ("answer", "slow answer"):
        rows[f"time of a whole {kind}, p50 / p99 / largest"] = times(run.seconds(kind))
    rows["resident memory in each fifth of the time"] = ", ".join(f"{size:.0f}" for size in samples.resident()) + " MiB"
    rows["file descriptors before; after"] = f"{run.before.files}; {run.after.files}"
    rows["load average of the machine, median"] = f"{statistics.median(samples.load_average):.1f}"
    rows["engine killed: requests at work, each of which got an error"] = len(kill.errors)
    rows["engine killed: last error after"] = f"{max(kill.errors):.2f} s"
    rows["engine killed: not ready after"] = f"{kill.not_ready:.2f} s"
    rows["engine killed: server ended after; exit code"] = f"{kill.exited:.2f} s; {kill.code}"
    rows["engine killed: all its processes gone after"] = f"{kill.gone:.2f} s"
    yield from ("| what | figure |", "|---|---|")
    yield from (f"| {name} | {value} |" for name, value in rows.items())
    yield from (f"\nWRONG ({count} times): {fault}" for fault, count in Counter(wrong).most_common(_SHOWN))
