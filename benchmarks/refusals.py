"""How soon bad input is refused, and whether the next request is answered. Prints one table.

`cllm serve demo/model` gets each kind of bad input in turn, several rounds, each on a connection of its own, and after
each one a request for one token, which must be answered.
"""

import argparse
import json
import os
import statistics
import time

import httpx
from common.servers import Server, free_port, running

_TIMEOUT_S = 60
_NESTED = {"type": "object", "properties": {"a": {"anyOf": [{"type": "string", "pattern": "(a|b){10000}"}]}}}


def _asking(**fields: object) -> bytes:
    return json.dumps({"prompt": "a", "max_tokens": 1} | fields).encode()


KINDS = {
    "half a JSON": (b'{"prompt": "a', 400),
    "invalid UTF-8": (b'{"prompt": "\xff\xfe"}', 400),
    "half a surrogate pair": (b'{"prompt": "\\ud800"}', 400),
    "500,000 brackets": (b"[" * 500_000, 400),
    "a number of 5000 digits": (b'{"prompt": "a", "max_tokens": ' + b"1" * 5000 + b"}", 400),
    "NaN": (b'{"prompt": "a", "temperature": NaN}', 400),
    "a scale that is a string": (_asking(control_scale="0.5"), 400),
    "a scale of 3": (_asking(control_scale=3), 400),
    "an unknown field": (_asking(nothing=1), 400),
    "an unknown model": (_asking(model="nothing"), 404),
    "n of 17": (_asking(n=17), 400),
    "129 prompts": (_asking(prompt=["a"] * 129), 400),
    "a prompt of 200,000 characters": (_asking(prompt="a b " * 50_000), 400),
    "a pattern that would take long": (_asking(structured_outputs={"regex": "(a|b){10000}"}), 400),
    "the same in a schema": (_asking(structured_outputs={"json": _NESTED}), 400),
    "a grammar of 40,000 characters": (_asking(structured_outputs={"grammar": 'root ::= "' + "a" * 40_000 + '"'}), 400),
    "a body of 1.5 MB": (b'{"prompt": "' + b"a" * 1_500_000, 413),
}
"""What is sent, and the status that it must have."""


def ask(server: Server, body: bytes) -> tuple[int, float]:
    """Send a body on a connection of its own; return the status, and the seconds until the answer was read."""
    with httpx.Client(verify=False, timeout=_TIMEOUT_S) as http:
        begun = time.perf_counter()
        answer = http.post(server.root + "/v1/completions", content=body, headers={"Content-Type": "application/json"})
        return answer.status_code, time.perf_counter() - begun


def main() -> None:
    """Start the server, ask, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    port = free_port()
    refused: dict[str, list[float]] = {kind: [] for kind in KINDS}
    answered: list[float] = []
    with running(["-m", "cllm", "serve", "demo/model", "--port", str(port)], port, "/ready") as server:
        load = os.getloadavg()[0]
        for _ in range(rounds):
            for kind, (body, wanted) in KINDS.items():
                status, seconds = ask(server, body)
                if status != wanted:
                    raise SystemExit(f"{kind}: status {status}, not {wanted}")
                refused[kind].append(seconds)
                status, seconds = ask(server, _asking())
                if status != 200:
                    raise SystemExit(f"after {kind}: status {status}")
                answered.append(seconds)
    print(f"{rounds} rounds; load average {load:.1f} before, {os.getloadavg()[0]:.1f} after\n")
    print("| bad input | status | median ms | largest ms |\n|---|---|---|---|")
    for kind, seconds in refused.items():
        print(f"| {kind} | {KINDS[kind][1]} | {_ms(statistics.median(seconds))} | {_ms(max(seconds))} |")
    print(f"| the request after each | 200 | {_ms(statistics.median(answered))} | {_ms(max(answered))} |")


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.0f}"


if __name__ == "__main__":
    main()
