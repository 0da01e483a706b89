"""Offline inference: vLLM's `LLM` with a control scale for each prompt. Imports vllm."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from vllm import LLM, EngineArgs, PoolingParams, RequestOutput, SamplingParams
from vllm.inputs import PromptType
from vllm.lora.request import LoRARequest

from cllm_model.scale import TRAINED_SCALE, check_scale
from cllm_model.vllm import register
from cllm_model.vllm.dial import dial_options
from cllm_model.vllm.limits import refuse_unsupported
from cllm_model.vllm.request import SCALE_KEY, asked_scale, salted, with_scale
from cllm_model.vllm.stack import hf_overrides


class ControlLLM(LLM):
    """vLLM's `LLM` for one Control LLM checkpoint.

    Requests of different scales run in one batch, and share KV blocks only where their scale is the same. All of `LLM`
    is there; a call that takes no control scale runs at `default_scale`.

    Args:
        model: Checkpoint directory, in our format or the published one.
        default_scale: Control scale of prompts that are given none; 0 is the base model, 1 the model as trained.
        engine: vLLM's engine options.

    Raises:
        ValueError: The checkpoint or an option is not valid; nothing was started.
    """

    def __init__(self, model: str | Path, *, default_scale: float = TRAINED_SCALE, **engine: Any) -> None:
        self.default_scale = check_scale(default_scale, "default_scale")
        overrides = hf_overrides(Path(model))
        if overrides and engine.get("hf_overrides"):
            raise ValueError(f"hf_overrides: not supported for {model}, a published stack, which needs its own")
        engine = {**engine, "hf_overrides": engine.get("hf_overrides") or overrides}
        register()
        config = EngineArgs(model=str(model), **engine).create_engine_config()
        refuse_unsupported(config)
        super().__init__(str(model), **engine | dial_options(config))

    def generate(
        self,
        prompts: PromptType | Sequence[PromptType],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        control_scale: float | Sequence[float] | None = None,
        **options: Any,
    ) -> list[RequestOutput]:
        """Return a completion of each prompt, in order.

        Args:
            prompts: One prompt or several, as `LLM.generate` takes them.
            sampling_params: For all prompts, or one for each.
            control_scale: For all prompts, or one for each; `default_scale` where None.
            options: What else `LLM.generate` takes.

        Raises:
            ValueError: A scale is not valid, or there are not as many as prompts.
        """
        params = self._with_scales(sampling_params, control_scale, _count(prompts))
        return super().generate(prompts, params, **options)

    def chat(  # type: ignore[override]
        self,
        messages: Any,
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        control_scale: float | Sequence[float] | None = None,
        **options: Any,
    ) -> list[RequestOutput]:
        """Return an answer to each conversation, in order; arguments as `generate`'s, and `LLM.chat`'s."""
        count = 1 if messages and isinstance(messages[0], dict) else len(messages)
        params = self._with_scales(sampling_params, control_scale, count)
        return super().chat(messages, params, **options)

    def _with_scales(
        self,
        params: SamplingParams | Sequence[SamplingParams] | None,
        scales: float | Sequence[float] | None,
        count: int,
    ) -> list[SamplingParams]:
        if params is None:
            params = self.get_default_sampling_params()
        each = list(params) if isinstance(params, Sequence) else [params] * count
        is_one = scales is None or isinstance(scales, str | float | int)
        wanted: list[Any] = [scales] * count if is_one else list(cast(Sequence[float], scales))
        for name, given in (("sampling_params", each), ("control_scale", wanted)):
            if len(given) != count:
                raise ValueError(f"{name}: {len(given)} values for {count} prompts; allowed: one, or one for each")
        return [self._with_scale(one, scale) for one, scale in zip(each, wanted, strict=True)]

    def _with_scale(self, params: SamplingParams, scale: float | None) -> SamplingParams:
        if asked_scale(params.extra_args) is not None:
            raise ValueError(f"extra_args: {SCALE_KEY!r} is reserved; use the argument control_scale")
        return _scaled(params, self.default_scale if scale is None else check_scale(scale))

    def _add_request(
        self,
        prompt: Any,
        params: SamplingParams | PoolingParams,
        lora_request: LoRARequest | None = None,
        priority: int = 0,
    ) -> str:
        """Add a request of any of `LLM`'s methods: here each gets its scale, and the cache salt that belongs to it."""
        if isinstance(params, PoolingParams):
            raise ValueError("pooling: not supported for a Control LLM model")
        asked = asked_scale(params.extra_args)
        scale = self.default_scale if asked is None else check_scale(asked)
        own_prompt: Any = salted(prompt, scale)
        return super()._add_request(own_prompt, _scaled(params, scale), lora_request, priority)


def _scaled(params: SamplingParams, scale: float) -> SamplingParams:
    own = params.clone()  # the caller's stay as they are
    own.extra_args = with_scale(own.extra_args, scale)
    return own


def _count(prompts: PromptType | Sequence[PromptType]) -> int:
    if isinstance(prompts, str | dict):
        return 1
    several = cast(Sequence[Any], prompts)
    return 1 if several and isinstance(several[0], int) else len(several)
