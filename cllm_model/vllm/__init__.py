"""Control LLM models in vLLM: a plugin, so that vLLM itself stays as it is.

What it gives vLLM: the architecture (`model`), the control scale of each request (`dial`, `request`) and the options
that do not work with it (`limits`). A dual-branch layer is two ordinary decoder layers with a paged KV cache each.
Importing this package costs nothing: vLLM is imported by `register` and by the modules, never here.
"""

ARCHITECTURES = ("ControlLLMForCausalLM", "CausalLMExpansion")
"""Architectures of our checkpoints and of the published ones; one class runs both."""


def register() -> None:
    """Make vLLM know the architectures; the `vllm.general_plugins` entry point, run in every process of an engine.

    Importing `cllm_model` registers the configuration classes. Calling this again changes nothing.
    """
    from vllm import ModelRegistry

    import cllm_model  # noqa: F401

    for architecture in ARCHITECTURES:
        if architecture not in ModelRegistry.models:
            ModelRegistry.register_model(architecture, "cllm_model.vllm.model:ControlLLMForCausalLM")
