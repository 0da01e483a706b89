"""What does not work with dual-branch layers or with the dial, refused when an engine starts."""

from vllm.config import VllmConfig


def refuse_unsupported(config: VllmConfig) -> None:
    """Refuse options that would be ignored or give wrong answers.

    Raises:
        ValueError: Names the option, and says what is allowed.
    """
    refusals = {
        "--enable-lora": (config.lora_config is not None, "adapter names do not match the two branches"),
        "--speculative-config": (
            config.speculative_config is not None,
            "vLLM then drops the logits processor that carries the control scale",
        ),
        "--enable-dbo": (config.parallel_config.enable_dbo, "micro-batches would not split the control scales"),
        "--kv-transfer-config": (config.kv_transfer_config is not None, "transfer of two caches is untested"),
        "--pipeline-parallel-size": (config.parallel_config.pipeline_parallel_size > 1, "it is untested; allowed: 1"),
        "VLLM_USE_V2_MODEL_RUNNER": (
            config.use_v2_model_runner,
            "control scales need vLLM's V1 model runner; set it to 0",
        ),
    }
    for option, (given, reason) in refusals.items():
        if given:
            raise ValueError(f"{option}: not supported for a Control LLM model: {reason}")
