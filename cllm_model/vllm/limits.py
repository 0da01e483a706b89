"""What does not work with two branches or with the dial, refused when an engine starts."""

from transformers import PreTrainedConfig
from vllm.config import CompilationMode, ModelConfig, VllmConfig
from vllm.platforms import current_platform
from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

_ONE_WINDOW_FOR_ALL = ("qwen2", "qwen3")
"""Families whose layers in vLLM all get the same attention window."""


def refuse_unsupported(config: VllmConfig) -> None:
    """Refuse options that would be ignored or give wrong answers.

    Raises:
        ValueError: Names the option, and says what is allowed.
    """
    parallel = config.parallel_config
    eager = config.compilation_config.mode == CompilationMode.NONE
    refusals = {
        "--enable-lora": (config.lora_config is not None, "adapter names do not match the two branches"),
        "--speculative-config": (
            config.speculative_config is not None,
            "vLLM then drops the logits processor that carries the control scale",
        ),
        "--enable-dbo": (parallel.enable_dbo, "micro-batches would not split the control scales"),
        "--ubatch-size": (
            not parallel.enable_dbo and parallel.use_ubatching,
            "micro-batches would not split the control scales; allowed: 0",
        ),
        "--prefill-context-parallel-size": (
            parallel.prefill_context_parallel_size > 1,
            "the rows of a prompt would not find their control scale; allowed: 1",
        ),
        "--enable-sleep-mode": (
            config.model_config.enable_sleep_mode,
            "an engine that wakes up would not find the dial's memory as it was",
        ),
        "--kv-transfer-config": (config.kv_transfer_config is not None, "transfer of two caches is untested"),
        "--pipeline-parallel-size": (
            parallel.pipeline_parallel_size > 1 and current_platform.is_cpu() and eager,
            "on a CPU, vLLM gives the later stages no memory for what they receive unless the model is compiled "
            "(--no-enforce-eager); allowed without: 1",
        ),
    }
    for option, (given, reason) in refusals.items():
        if given:
            raise ValueError(f"{option}: not supported for a Control LLM model: {reason}")
    refuse_other_layers(config.model_config.hf_config)


def refuse_head_size(config: ModelConfig) -> None:
    """Refuse heads of a size that vLLM's attention for CPUs lacks: it would end the engine at the first request.

    Raises:
        ValueError: Names the size, and those that are there.
    """
    if not current_platform.is_cpu():
        return
    size, allowed = config.get_head_size(), CPUAttentionBackend.get_supported_head_sizes()
    if size not in allowed:
        raise ValueError(f"head_dim: {size} is not supported by vLLM on a CPU; allowed: {', '.join(map(str, allowed))}")


def refuse_other_layers(config: PreTrainedConfig) -> None:
    """Refuse a model whose layers vLLM would build, without a word, as something else than Hugging Face does.

    Raises:
        ValueError: Names the field.
    """
    family = config.base_model_type
    kinds = sorted(set(getattr(config, "layer_types", None) or ()))
    if family in _ONE_WINDOW_FOR_ALL and len(kinds) > 1:
        raise ValueError(
            f"layer_types: {' and '.join(kinds)} in one model are not supported: vLLM's {family} layers all get the "
            "same window; allowed: one kind for all (max_window_layers 0 or num_hidden_layers)"
        )
    if family == "qwen3" and config.attention_bias:
        raise ValueError(
            "attention_bias: True is not supported: vLLM's qwen3 layers leave out o_proj's; allowed: False"
        )
