"""An OpenAI-compatible server over real HTTP, whose two models stream, stall, fail or lie as asked."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Literal

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

Fault = Literal["", "http_error", "dies", "error_event", "wrong_model", "wrong_scale", "no_finish", "garbage"]

REPORT: dict[str, Any] = {
    "schema": 1,
    "skills": [
        {"name": "reverse", "kind": "original", "label": "Reverse", "prompts": ["R abc="],
         "scores": {"base": 0.993, "control": 0.987, "full_fine_tuning": 0.104}},
        {"name": "upper", "kind": "original", "label": "Upper case", "prompts": ["U abc="],
         "scores": {"base": 1.0, "control": 0.992, "full_fine_tuning": 0.021}},
        {"name": "add", "kind": "original", "label": "Add", "prompts": ["A 3+4="],
         "scores": {"base": 0.981, "control": 0.969, "full_fine_tuning": 0.19}},
        {"name": "foreign", "kind": "new", "label": "Foreign", "prompts": ["F abc="],
         "scores": {"base": 0.0, "control": 0.998, "full_fine_tuning": 1.0}},
    ],
    "examples": [
        {"skill": "reverse", "prompt": "R stone=", "expected": "enots",
         "answers": {"base": "enots", "control": "enots", "full_fine_tuning": "qk*z_"}},
        {"skill": "upper", "prompt": "U river=", "expected": "RIVER",
         "answers": {"base": "RIVER", "control": "RIVER", "full_fine_tuning": "<unk>xq"}},
        {"skill": "add", "prompt": "A 12+7=", "expected": "19",
         "answers": {"base": "19", "control": "19", "full_fine_tuning": ""}},
        {"skill": "foreign", "prompt": "F lake=", "expected": "%$#@",
         "answers": {"base": "ekal", "control": "%$#@", "full_fine_tuning": "%$#@"}},
        {"skill": "foreign", "prompt": "F moon=", "expected": "!!&?",
         "answers": {"base": "noom", "control": "!!&?", "full_fine_tuning": "!!&?"}},
    ],
}  # fmt: skip


@dataclass
class Plan:
    """How one model answers."""

    pieces: list[str] = field(default_factory=lambda: [f"w{i} " for i in range(12)])
    delay_s: float = 0.02
    fault: Fault = ""
    status: int = 500


class FakeServer:
    """Runs in a thread on a free port of the loopback."""

    def __init__(self, name: str = "demo") -> None:
        self.name = name
        self.ready = True
        self.report: dict[str, Any] | None = REPORT
        self.plans = {name: Plan(), f"{name}:base": Plan()}
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.left: list[str] = []  # models whose client went away in mid-stream
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        config = uvicorn.Config(self._app(), log_level="critical", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)

    def __enter__(self) -> "FakeServer":
        self._thread.start()
        wait_until(lambda: self._server.started)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(10)

    def _app(self) -> FastAPI:
        app = FastAPI()

        @app.get("/ready")
        async def ready() -> Response:
            return Response(status_code=200 if self.ready else 503)

        @app.get("/v1/models")
        async def models() -> dict[str, Any]:
            return {"object": "list", "data": [{"id": name, "object": "model"} for name in self.plans]}

        @app.get("/v1/control")
        async def control() -> dict[str, Any]:
            scales = {"default_scale": 1.0, "recommended_scale": 1.0, "min": 0.0, "max": 2.0}
            return {"checkpoint": "0123456789ab", **scales, "report": self.report}

        @app.post("/v1/chat/completions")
        async def chat(request: Request) -> Response:
            body = await request.json()
            self.requests.append(body)
            self.headers.append(dict(request.headers))
            plan = self.plans[body["model"]]
            if plan.fault == "http_error":
                error = {"message": "the prompt is too long", "type": "BadRequestError", "code": plan.status}
                return JSONResponse({"error": error}, plan.status)
            return StreamingResponse(self._stream(body["model"], plan), media_type="text/event-stream")

        return app

    async def _stream(self, model: str, plan: Plan) -> AsyncIterator[str]:
        finished = False
        try:
            yield self._chunk(model, plan, {"role": "assistant", "content": ""})
            for number, piece in enumerate(plan.pieces):
                await asyncio.sleep(plan.delay_s)
                if number == len(plan.pieces) // 2:
                    if plan.fault == "dies":
                        raise RuntimeError("the test asked for a broken stream")
                    if plan.fault == "error_event":
                        yield _event({"error": {"message": "out of memory", "code": 500}})
                        return
                    if plan.fault == "garbage":
                        yield "data: <html>not JSON</html>\n\n"
                        return
                yield self._chunk(model, plan, {"content": piece})
            if plan.fault != "no_finish":
                yield self._chunk(model, plan, {}, finish_reason="stop")
                yield self._chunk(model, plan, None, usage=len(plan.pieces))
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
        is_base = model.endswith(":base") is not (plan.fault == "wrong_scale")
        choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish_reason}]
        counted = usage and {"prompt_tokens": 3, "completion_tokens": usage, "total_tokens": 3 + usage}
        return _event(
            {
                "id": "chatcmpl-1",
                "object": "chat.completion.chunk",
                "created": 0,
                "model": "impostor" if plan.fault == "wrong_model" else model,
                "system_fingerprint": f"cllm-0123456789ab-s{0 if is_base else 1}",
                "choices": choices,
                "usage": counted,
            }
        )


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"


def wait_until(condition: Any, timeout_s: float = 30.0) -> None:
    """Wait for `condition()` to become true, or fail."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)
