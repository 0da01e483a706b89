"""The plugin of vLLM's server: puts our routes in place of vLLM's and starts the warm-up.

The `vllm.endpoint_plugins` entry point. vLLM loads it only where `VLLM_PLUGINS` names it, as `cllm serve` does.
"""

import asyncio
from argparse import Namespace
from typing import Any

from fastapi import FastAPI
from starlette.datastructures import State

from serve.app import control_routes, openai_routes, token_routes
from serve.app.access_log import AccessLog
from serve.app.admission import Admission
from serve.app.body import BodyLimit
from serve.app.document import describe
from serve.app.engine import ControlEngine
from serve.app.errors import add_handlers
from serve.app.gate import Gate
from serve.app.guard import Guard
from serve.app.models import ControlModels
from serve.app.mounted import Mounted
from serve.app.provenance import Stamped
from serve.service import Service

PAGE_PATH = "/ui"


class ControlPlugin:
    """vLLM's `EndpointPlugin` protocol."""

    name = "control_llm_server"
    required_tasks = ("generate",)

    def attach_router(self, app: FastAPI) -> None:
        """Add our routes, which replace vLLM's of the same path, and put what guards them in front.

        Raises:
            ValueError: The server is not ours, so that nothing would apply a control scale.
        """
        service = getattr(app.state.args, "service", None)
        if not isinstance(service, Service):
            raise ValueError(f"the plugin {self.name} works in the server that `cllm serve` starts, and in no other")
        settings = service.settings
        for routes in (openai_routes, token_routes, control_routes):
            app.include_router(routes.router)
        describe(app, needs_key=bool(service.keys))
        add_handlers(app)
        # What is added last sees a request first.
        app.add_middleware(Admission, max_queue=settings.max_queue)
        app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes, seconds=settings.body_seconds)
        app.add_middleware(Gate)
        app.add_middleware(Guard, keys=service.keys)
        app.add_middleware(AccessLog, prompts=settings.log_prompts)
        if service.page is not None:
            page = BodyLimit(service.page, max_bytes=settings.max_body_bytes, seconds=settings.body_seconds)
            app.add_middleware(Mounted, path=PAGE_PATH, page=page)

    async def init_state(self, engine_client: Any, state: State, args: Namespace) -> None:
        """Let answers carry the id that was asked for and the fingerprint, and start the warm-up."""
        assert isinstance(engine_client, ControlEngine)
        ids, digest = engine_client.settings.ids, engine_client.checkpoint.digest
        models = ControlModels(engine_client, state.openai_serving_models.base_model_paths, ids)
        state.openai_serving_models = models
        for handler in (state.openai_serving_chat, state.openai_serving_completion, state.serving_tokenization):
            handler.models = models
        state.openai_serving_chat = Stamped(state.openai_serving_chat, digest)
        state.openai_serving_completion = Stamped(state.openai_serving_completion, digest)
        state.warm_up = asyncio.create_task(engine_client.warm_up())
