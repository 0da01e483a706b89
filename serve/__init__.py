"""Serving: vLLM's own OpenAI server for one Control LLM checkpoint, under two model ids and one copy of the weights.

`settings` and `ids` say what is asked for, `preflight` refuses bad input before anything heavy starts, `launch` starts
vLLM, and `app` is what is added to vLLM's server. Imports `cllm_model`, never `training` or `ui`.
`offline` is vLLM's `LLM` with a control scale for each prompt: ``from serve import ControlLLM``.
Importing this package imports nothing else; asking it for `ControlLLM` imports vllm.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serve.offline import ControlLLM

__all__ = ["ControlLLM"]


def __getattr__(name: str) -> Any:
    if name == "ControlLLM":
        from serve.offline import ControlLLM

        return ControlLLM
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
