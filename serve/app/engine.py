"""The engine as the server sees it: every generation gets the control scale that its request asked for.

The one place where a request meets its scale and its cache salt, whatever route it came by. All else is
vLLM's engine client, passed through.
"""

import copy
import logging
from collections.abc import AsyncGenerator
from typing import Any, NoReturn

from vllm import RequestOutput, SamplingParams
from vllm.exceptions import VLLMValidationError
from vllm.inputs import EngineInput
from vllm.inputs.engine import tokens_input
from vllm.v1.engine.async_llm import AsyncLLM

from cllm_model.vllm.request import salted, with_scale
from serve.app.strength import Strength, ask_for, asked_for
from serve.app.traffic import Traffic
from serve.preflight import Checkpoint
from serve.settings import Settings

logger = logging.getLogger(__name__)


class ControlEngine:
    """An engine client that applies control scales.

    Args:
        engine: vLLM's engine client.
        settings: The server's settings.
        checkpoint: What is served.
    """

    def __init__(self, engine: Any, settings: Settings, checkpoint: Checkpoint) -> None:
        self._engine: AsyncLLM = engine
        self.settings = settings
        self.checkpoint = checkpoint
        self.traffic = Traffic()
        self.has_answered = False
        self.was_shut_down = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def generate(
        self, prompt: EngineInput, sampling_params: SamplingParams, request_id: str, **options: Any
    ) -> AsyncGenerator[RequestOutput, None]:
        """Start a generation at the control scale that the request at hand asked for.

        Raises:
            VLLMValidationError: The route did not say what was asked for, or the prompt is not one that vLLM rendered.
        """
        scale = asked_for().scale
        if not (isinstance(prompt, dict) and "type" in prompt):
            raise VLLMValidationError("This route's prompts cannot be kept apart by control scale, so it is closed.")
        own_prompt: Any = salted(prompt, scale)
        params = copy.copy(sampling_params)
        params.extra_args = with_scale(params.extra_args, scale)
        return self._engine.generate(own_prompt, params, request_id, **options)

    def encode(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse: a pooled embedding would not say which model made it."""
        raise VLLMValidationError("Pooling is not supported for a Control LLM model.")

    def add_request(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse: requests start by `generate`, which sets their scale."""
        raise VLLMValidationError("Requests are added by `generate`.")

    @property
    def is_ready(self) -> bool:
        """Whether generation requests are let in: the engine has answered, lives, and was not asked to end."""
        return self.has_answered and not self._engine.errored and not self.traffic.is_draining

    def shutdown(self, timeout: float | None = None) -> None:
        """Let running requests end, then stop the engine, because the server was asked to end.

        vLLM's server calls this on a thread, and goes on answering meanwhile.
        """
        self.was_shut_down = True
        if left := self.traffic.drain(self.settings.drain_seconds):
            logger.warning("%d requests still ran after %g seconds: broken off", left, self.settings.drain_seconds)
        self._engine.shutdown(timeout=timeout)

    async def warm_up(self) -> None:
        """Generate one token, which shows that the engine answers."""
        ask_for(Strength(self.settings.name, self.settings.ids.default_scale))
        params = SamplingParams(max_tokens=1, temperature=0.0, detokenize=False)
        try:
            async for _ in self.generate(tokens_input([0]), params, "warm-up"):
                pass
        except Exception:
            logger.exception("The first answer failed: the server stays not ready.")
            raise
        self.has_answered = True
