"""One line of JSON for each request, without what was asked and answered, unless that is wanted. An ASGI middleware.

It also names each request: by the client's `X-Request-Id`, if that is fit for a log, else by a new id.
"""

import json
import logging
import re
import sys
import time
import uuid
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.app.guard import PROBES
from serve.app.metrics import count_refusal

_HEADER = "x-request-id"
_FIT = re.compile(r"[A-Za-z0-9._-]{1,64}")
_QUIET = PROBES | {"/metrics"}  # asked every few seconds; logged only when something is wrong
_NONE = 0  # no answer was begun

logger = logging.getLogger(__name__)


def log_to_stdout() -> None:
    """Let the lines go to standard output, bare."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


class AccessLog:
    """Logs each request at its end: the answer is `complete`, the client `left` before, or the server has `broken` off.

    Args:
        app: What answers.
        prompts: Log the bodies of requests too.
    """

    def __init__(self, app: ASGIApp, prompts: bool) -> None:
        self.app = app
        self.prompts = prompts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on under a name, and log it."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        given = Headers(scope=scope).get(_HEADER, "")
        name = given if _FIT.fullmatch(given) else uuid.uuid4().hex
        others = [(header, value) for header, value in scope["headers"] if header != _HEADER.encode()]
        state: dict[str, Any] = scope.setdefault("state", {})
        status, end = _NONE, "broken"

        async def send_named(message: Message) -> None:
            nonlocal status, end
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[_HEADER] = name
            elif not message.get("more_body", False) and end != "left":
                end = "complete"
            await send(message)

        async def receive_noted() -> Message:
            nonlocal end
            message = await receive()
            if message["type"] == "http.disconnect" and end != "complete":
                end = "left"
            return message

        begun = time.perf_counter()
        try:
            named = {**scope, "headers": [*others, (_HEADER.encode(), name.encode())]}
            await self.app(named, receive_noted, send_named)
        except Exception:
            status = HTTPStatus.INTERNAL_SERVER_ERROR.value
            raise
        finally:
            if status >= HTTPStatus.BAD_REQUEST:
                count_refusal(status)
            took = time.perf_counter() - begun
            self._log(scope, state, request_id=name, status=status, seconds=round(took, 4), end=end)

    def _log(self, scope: Scope, state: dict[str, Any], **facts: Any) -> None:
        if scope["path"] in _QUIET and facts["status"] < HTTPStatus.BAD_REQUEST:
            return
        line = {"time": datetime.now(UTC).isoformat(), **facts, "method": scope["method"], "path": scope["path"]}
        if (strength := state.get("strength")) is not None:
            line |= {"model": strength.model_id, "scale": strength.scale}
        if (usage := getattr(state.get("request_metadata"), "final_usage_info", None)) is not None:
            line |= {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens}
        if self.prompts and "body" in state:
            line["body"] = state["body"].decode(errors="replace")
        logger.info(json.dumps(line))
