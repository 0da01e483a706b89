"""vLLM's table of served models, which knows ids of any scale and puts the one that was asked for into every answer."""

from typing import Any

from vllm.entrypoints.openai.models.protocol import BaseModelPath
from vllm.entrypoints.openai.models.serving import OpenAIServingModels
from vllm.lora.request import LoRARequest

from serve.app.strength import asked_for
from serve.ids import ModelIds


class ControlModels(OpenAIServingModels):
    """Models of one checkpoint: vLLM's would know only those that are listed, and name the first one in all answers."""

    def __init__(self, engine_client: Any, base_model_paths: list[BaseModelPath], ids: ModelIds) -> None:
        super().__init__(engine_client, base_model_paths)
        self._ids = ids

    def is_base_model(self, model_name: str) -> bool:
        """Whether the server answers to an id."""
        return self._ids.scale_of(model_name) is not None

    def model_name(self, lora_request: LoRARequest | None = None) -> str:
        """Return the id that the request at hand asked for."""
        return asked_for().model_id
