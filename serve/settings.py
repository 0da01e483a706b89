"""Settings of the server: the only place where a default is written. Light: it is imported for every `--help`."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from serve.ids import ModelIds, check_name

RECOMMENDED = "recommended"
"""The default scale that means: what the checkpoint's training report recommends."""

_LEAST = {
    **dict.fromkeys(("max_body_bytes", "max_queue", "max_n", "max_prompts", "max_tokens"), 1),
    **dict.fromkeys(("max_stops", "max_stop_length", "max_grammar_bytes", "max_pattern_length"), 0),
    "body_seconds": 0.1,
    "drain_seconds": 0,
}


@dataclass(frozen=True)
class Settings:
    """What `cllm serve` was asked for.

    Args:
        model: Checkpoint directory.
        name: Model id; the directory's name if empty.
        host: Address to listen on.
        port: TCP port to listen on.
        default_scale: Control scale of requests that name none, or `RECOMMENDED`.
        max_scale: Largest control scale that a request may ask for.
        api_key_file: File with API keys, see `serve.keys`; `CLLM_API_KEYS` holds more.
        max_body_bytes: Size of the largest request.
        body_seconds: Time that a request's body may take to arrive.
        max_queue: Most generation requests at a time, running and waiting, each of up to `max_n` times `max_prompts`
            answers.
        max_n: Most answers to one prompt.
        max_prompts: Most prompts in one request for completions.
        max_tokens: Most tokens of an answer; None for what the context has room for.
        max_stops: Most stop strings of a request.
        max_stop_length: Characters of the longest stop string.
        max_grammar_bytes: Size of the largest schema, grammar or list that an answer must keep to.
        max_pattern_length: Characters of the longest regular expression in one.
        drain_seconds: Time that running requests have to end after SIGTERM.
        log_prompts: Write the bodies of requests into the access log.
        ui: Serve the comparison page under `/ui`.

    Raises:
        ValueError: A value is not allowed.
    """

    model: Path
    name: str = ""
    host: str = "127.0.0.1"
    port: int = 8000
    default_scale: float | str = 1.0
    max_scale: float = 2.0
    api_key_file: Path | None = None
    max_body_bytes: int = 2**20
    body_seconds: float = 30.0
    max_queue: int = 256
    max_n: int = 16
    max_prompts: int = 128
    max_tokens: int | None = None
    max_stops: int = 16
    max_stop_length: int = 1024
    max_grammar_bytes: int = 2**15
    max_pattern_length: int = 1000
    drain_seconds: float = 25.0  # Kubernetes kills after 30
    log_prompts: bool = False
    ui: bool = False

    def __post_init__(self) -> None:
        from cllm_model.scale import check_scale

        if not 1 <= self.port <= 65535:
            raise ValueError(f"port: {self.port} is out of range; allowed: 1 to 65535")
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and not value >= least:  # not >=, for NaN
                raise ValueError(f"{name}: {value} is out of range; allowed: {least} or more")
        object.__setattr__(self, "name", self.name or self.model.resolve().name)
        check_name(self.name)
        object.__setattr__(self, "max_scale", check_scale(self.max_scale, "max_scale"))
        if self.default_scale != RECOMMENDED:
            object.__setattr__(self, "default_scale", check_scale(self.default_scale, "default_scale", self.max_scale))

    @property
    def ids(self) -> ModelIds:
        """The model ids that the server answers to; known once `with_report` said what is recommended."""
        assert isinstance(self.default_scale, float)
        return ModelIds(self.name, self.default_scale, self.max_scale)

    def with_report(self, report: dict[str, Any] | None) -> "Settings":
        """Return the settings with a default scale that is a number.

        Raises:
            ValueError: The report's recommendation was asked for, and there is none, or it is above `max_scale`.
        """
        if self.default_scale != RECOMMENDED:
            return self
        scale = (report or {}).get("recommended_scale")
        if scale is None:
            raise ValueError(f"default_scale: {RECOMMENDED!r} needs a report.json about this checkpoint that names one")
        return replace(self, default_scale=scale)


@dataclass(frozen=True)
class CpuDefaults:
    """Defaults of vLLM options on a CPU, where vLLM's own suit large servers. Options given by the user win.

    Args:
        block_size: Tokens in a KV block; vLLM's 128 would cache no prefix of a short prompt.
        kv_cache_memory_bytes: Memory for KV blocks; vLLM's default takes nearly all memory of the machine.
        enforce_eager: Run without torch.compile: the server is up a minute sooner and needs no C++ compiler.
    """

    block_size: int = 32
    kv_cache_memory_bytes: int = 2**30
    enforce_eager: bool = True
