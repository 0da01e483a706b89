"""The last phase of the load test: the engine process is killed while streams run, and what clients see is timed."""

import asyncio
import json
import os
import signal
import time
from dataclasses import dataclass

import httpx
import psutil
from common.servers import Server

_ENGINE = "EngineCore"  # in the command line of vLLM's engine process
_STREAMS = 16
_WHOLE = 4
_TOKENS = 220
_PATIENCE_S = 60
_POLL_S = 0.02
_ORPHAN_S = 60  # time that the server's other processes have to end after it


@dataclass(frozen=True)
class Kill:
    """What happened after the engine process was killed; times in seconds from there.

    Args:
        errors: For each request at work, when it got its error.
        not_ready: When `/ready` no longer answered 200.
        exited: When the server's process had ended.
        code: Its exit code.
        gone: When all its processes had ended.
        faults: What was wrong.
    """

    errors: list[float]
    not_ready: float
    exited: float
    code: int
    gone: float
    faults: list[str]


async def kill_engine(server: Server, name: str) -> Kill:
    """Kill a server's engine while streams and whole answers are on their way."""
    tree = server.tree()
    engine = next(process for process in tree if _ENGINE in "".join(process.cmdline()))
    body = {"model": name, "prompt": "a", "max_tokens": _TOKENS, "temperature": 0, "ignore_eos": True}
    async with httpx.AsyncClient(base_url=server.root, verify=False, timeout=_PATIENCE_S) as http:
        started = [asyncio.Event() for _ in range(_STREAMS)]
        tasks = [asyncio.create_task(_stream(http, body, event)) for event in started]
        tasks += [asyncio.create_task(_whole(http, body)) for _ in range(_WHOLE)]
        await asyncio.gather(*[event.wait() for event in started])
        begun = time.monotonic()
        os.kill(engine.pid, signal.SIGKILL)
        not_ready, exited = asyncio.create_task(_not_ready(server)), asyncio.create_task(_exited(server))
        at_work = [end for end in await asyncio.gather(*tasks) if end[0] >= begun]
    code, when_exited = await exited
    faults = [fault for _, fault in at_work if fault]
    if not code:
        faults.append(f"the server ended with {code}")
    _, alive = await asyncio.to_thread(psutil.wait_procs, tree, timeout=_ORPHAN_S)
    for process in alive:
        faults.append(f"outlives its server: {process}")
        process.kill()
    gone = time.monotonic() - begun
    return Kill([when - begun for when, _ in at_work], await not_ready - begun, when_exited - begun, code, gone, faults)


async def _stream(http: httpx.AsyncClient, body: dict[str, object], started: asyncio.Event) -> tuple[float, str | None]:
    """Return when a stream ended, and what was wrong: it must end with an error, and look like nothing else."""
    events = []
    try:
        async with http.stream("POST", "/v1/completions", json=body | {"stream": True}) as response:
            async for line in response.aiter_lines():
                if line:
                    events.append(line.removeprefix("data: "))
                    started.set()
    except httpx.TransportError:
        return time.monotonic(), None  # broken off: no client takes this for an end
    finally:
        started.set()
    when = time.monotonic()
    parts = [json.loads(event) for event in events if event != "[DONE]"]
    return when, _fault(parts[-1]) if parts else "a stream that holds nothing"


async def _whole(http: httpx.AsyncClient, body: dict[str, object]) -> tuple[float, str | None]:
    try:
        answer = await http.post("/v1/completions", json=body)
    except httpx.TransportError:
        return time.monotonic(), None
    if answer.status_code < 500:
        return time.monotonic(), f"status {answer.status_code} from an engine that is dead"
    return time.monotonic(), _fault(answer.json())


def _fault(part: dict[str, object]) -> str | None:
    """Return what is wrong with an error in OpenAI's shape."""
    error = part.get("error")
    is_error = isinstance(error, dict) and error.get("message") and error.get("type") and error.get("code")
    return None if is_error else f"not an error: {part}"


async def _not_ready(server: Server) -> float:
    async with httpx.AsyncClient(verify=False, timeout=_PATIENCE_S) as http:
        while True:
            try:
                if (await http.get(f"{server.root}/ready")).status_code != 200:
                    return time.monotonic()
            except httpx.TransportError:
                return time.monotonic()
            await asyncio.sleep(_POLL_S)


async def _exited(server: Server) -> tuple[int, float]:
    async with asyncio.timeout(_PATIENCE_S):
        while (code := server.process.poll()) is None:
            await asyncio.sleep(_POLL_S)
    return code, time.monotonic()
