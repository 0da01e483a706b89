"""An OpenAI-compatible server over real HTTP, whose models stream, stall, fail or lie as asked.

`demo` and `demo:base` are listed, `demo@0.5` answers too; a model without a `Plan` of its own answers by `default`.
"""

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response, StreamingResponse

Fault = Literal[
    "", "http_error", "dies", "error_event", "wrong_model", "wrong_scale", "no_mark", "no_finish", "garbage",
    "odd_chunk", "html", "redirect",
]  # fmt: skip

REPORT: dict[str, Any] = json.loads((Path(__file__).parent / "report.json").read_text())


@dataclass
class Plan:
    """How one model answers."""

    pieces: list[str] = field(default_factory=lambda: [f"w{i} " for i in range(12)])
    delay_s: float = 0.01
    fault: Fault = ""
    status: int = 500
    hold_after: int | None = None  # pieces; the rest comes once this is None again, or never


class FakeServer:
    """Runs in a thread on a free port of the loopback."""

    def __init__(self, name: str = "demo") -> None:
        self.name = name
        self.ready = True
        self.report: dict[str, Any] | None = REPORT
        self.has_dial = True
        self.key = ""  # asked for, if not empty
        self.plans: dict[str, Plan] = {}
        self.default = Plan()
        self.replies: dict[str, str] = {}  # by prompt, from any model
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.left: list[str] = []  # models whose client went away in mid-stream
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        config = uvicorn.Config(self._app(), log_level="critical", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)

    def reset(self) -> None:
        """Forget plans and requests, so that one server serves many tests."""
        self.ready, self.report, self.has_dial, self.key = True, REPORT, True, ""
        self.plans, self.default, self.replies = {}, Plan(), {}
        self.requests, self.headers, self.left = [], [], []

    def plan(self, model: str, **changes: Any) -> Plan:
        """Give a model a plan of its own."""
        self.plans[model] = Plan(**changes)
        return self.plans[model]

    def asked(self, model: str) -> list[dict[str, Any]]:
        """The requests for a model."""
        return [request for request in self.requests if request["model"] == model]

    def __enter__(self) -> "FakeServer":
        self._thread.start()
        wait_until(lambda: self._server.started)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(10)

    def _app(self) -> FastAPI:
        app = FastAPI()

        @app.middleware("http")
        async def guard(request: Request, call_next: Any) -> Response:
            if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
                return JSONResponse({"error": {"message": "wrong key", "type": "AuthenticationError"}}, 401)
            return await call_next(request)

        @app.get("/ready")
        async def ready() -> Response:
            return Response(status_code=200 if self.ready else 503)

        @app.get("/v1/models")
        async def models() -> dict[str, Any]:
            names = [self.name, f"{self.name}:base"] if self.has_dial else [self.name]
            return {"object": "list", "data": [{"id": name, "object": "model"} for name in names]}

        @app.get("/v1/control")
        async def control() -> Response:
            if not self.has_dial:
                return Response(status_code=404)
            scales = {"default_scale": 1.0, "recommended_scale": 0.75, "min": 0.0, "max": 2.0}
            return JSONResponse({"checkpoint": "0123456789ab", **scales, "report": self.report})

        @app.post("/v1/chat/completions")
        async def chat(request: Request) -> Response:
            body = await request.json()
            self.requests.append(body)
            self.headers.append(dict(request.headers))
            plan = self.plans.get(body["model"], self.default)
            if plan.fault == "http_error":
                error = {"message": "the prompt is too long", "type": "BadRequestError", "code": plan.status}
                return JSONResponse({"error": error}, plan.status)
            if plan.fault == "redirect":
                return RedirectResponse("/elsewhere")
            if plan.fault == "html":
                return Response("<html><script>alert(1)</script>a portal</html>", media_type="text/html")
            reply = self.replies.get(body["messages"][-1]["content"])
            pieces = plan.pieces if reply is None else [reply]
            return StreamingResponse(self._stream(body["model"], plan, pieces), media_type="text/event-stream")

        return app

    async def _stream(self, model: str, plan: Plan, pieces: list[str]) -> AsyncIterator[str]:
        finished = False
        try:
            yield self._chunk(model, plan, {"role": "assistant", "content": ""})
            for number, piece in enumerate(pieces):
                while plan.hold_after is not None and number >= plan.hold_after:
                    await asyncio.sleep(0.02)
                await asyncio.sleep(plan.delay_s)
                if number == len(pieces) // 2:
                    if plan.fault == "dies":
                        raise RuntimeError("the test asked for a broken stream")
                    if plan.fault == "error_event":
                        yield _event({"error": {"message": "out of memory", "code": 500}})
                        return
                    if plan.fault == "garbage":
                        yield "data: <html>not JSON</html>\n\n"
                        return
                    if plan.fault == "odd_chunk":  # JSON of another shape than a chunk's
                        yield _event({"model": model, "choices": [{"delta": None}]})
                        return
                yield self._chunk(model, plan, {"content": piece})
            if plan.fault != "no_finish":
                yield self._chunk(model, plan, {}, finish_reason="stop")
                yield self._chunk(model, plan, None, usage=len(pieces))
            yield "data: [DONE]\n\n"
            finished = True
        finally:
            if not finished and not plan.fault:
                self.left.append(model)

    def _chunk(
        self,
        model: str,
        plan: Plan,
        delta: dict[str, str] | None,
        finish_reason: str | None = None,
        usage: int | None = None,
    ) -> str:
        scale = 0.0 if model.endswith(":base") else float(model.partition("@")[2] or 1)
        scale += plan.fault == "wrong_scale"
        mark = f"cllm-0123456789ab-s{scale:g}"
        choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish_reason}]
        counted = usage and {"prompt_tokens": 3, "completion_tokens": usage, "total_tokens": 3 + usage}
        return _event(
            {
                "id": "chatcmpl-1",
                "object": "chat.completion.chunk",
                "created": 0,
                "model": "impostor" if plan.fault == "wrong_model" else model,
                "system_fingerprint": mark if self.has_dial and plan.fault != "no_mark" else None,
                "choices": choices,
                "usage": counted,
            }
        )


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"


def wait_until(condition: Any, timeout_s: float = 120.0) -> None:
    """Wait for `condition()` to become true, or fail."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)
