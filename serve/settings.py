"""Settings of the server: the only place where a default is written."""

from dataclasses import dataclass
from pathlib import Path

from serve.ids import ModelIds


@dataclass(frozen=True)
class Settings:
    """What `cllm serve` was asked for.

    Args:
        model: Checkpoint directory.
        name: Model id; the directory's name if empty.
        host: Address to listen on.
        port: TCP port to listen on.
        default_scale: Control scale of requests that name none.
        max_scale: Largest control scale that a request may ask for.

    Raises:
        ValueError: A value is not allowed.
    """

    model: Path
    name: str = ""
    host: str = "127.0.0.1"
    port: int = 8000
    default_scale: float = 1.0
    max_scale: float = 2.0

    def __post_init__(self) -> None:
        if not 1 <= self.port <= 65535:
            raise ValueError(f"port: {self.port} is out of range; allowed: 1 to 65535")
        object.__setattr__(self, "name", self.name or self.model.resolve().name)
        assert self.ids

    @property
    def ids(self) -> ModelIds:
        """The model ids that the server answers to."""
        return ModelIds(self.name, self.default_scale)


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
