"""vLLM's table of served models, with the id that was asked for in every answer."""

from vllm.entrypoints.openai.models.serving import OpenAIServingModels
from vllm.lora.request import LoRARequest

from serve.app.strength import asked_for


class ControlModels(OpenAIServingModels):
    """Models of one checkpoint: vLLM's would name the first one in all answers."""

    def model_name(self, lora_request: LoRARequest | None = None) -> str:
        """Return the id that the request at hand asked for."""
        return asked_for().model_id
