"""The plugin of vLLM's server: puts our routes in place of vLLM's and starts the warm-up.

The `vllm.endpoint_plugins` entry point. vLLM loads it only where `VLLM_PLUGINS` names it, as `cllm serve` does.
"""

import asyncio
from argparse import Namespace
from typing import Any

from fastapi import FastAPI
from starlette.datastructures import State

from serve.app import control_routes, openai_routes
from serve.app.engine import ControlEngine
from serve.app.gate import Gate
from serve.app.models import ControlModels


class ControlPlugin:
    """vLLM's `EndpointPlugin` protocol."""

    name = "control_llm_server"
    required_tasks = ("generate",)

    def attach_router(self, app: FastAPI) -> None:
        """Add our routes, which replace vLLM's of the same path, and close those that are not known."""
        app.include_router(openai_routes.router)
        app.include_router(control_routes.router)
        app.add_middleware(Gate)

    async def init_state(self, engine_client: Any, state: State, args: Namespace) -> None:
        """Let answers carry the id that was asked for, and start the warm-up.

        Raises:
            ValueError: The engine's client is not ours, so that nothing would apply a control scale.
        """
        if not isinstance(engine_client, ControlEngine):
            raise ValueError(f"the plugin {self.name} works in the server that `cllm serve` starts, and in no other")
        models = ControlModels(engine_client, state.openai_serving_models.base_model_paths)  # type: ignore[arg-type]
        state.openai_serving_models = models
        state.openai_serving_chat.models = models
        state.openai_serving_completion.models = models
        state.warm_up = asyncio.create_task(engine_client.warm_up())
