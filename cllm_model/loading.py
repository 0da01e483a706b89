"""Loading with Hugging Face's `from_pretrained`, made strict: headers first, safetensors only, no tensor amiss."""

import os
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel

from cllm_model import checkpoint


class CheckedLoading(PreTrainedModel):
    """A model that loads a checkpoint whole or not at all, where transformers would warn and fill in at random."""

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str] | None,
        *model_args: Any,
        config: PreTrainedConfig | str | os.PathLike[str] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Return the model of a checkpoint; the arguments are those of transformers.

        A local directory is checked by its headers before anything is allocated, a model of the hub once it is loaded.

        Raises:
            ValueError: The checkpoint is not valid: see `cllm_model.checkpoint.read_config` and `check_tensors`.
        """
        name, load = pretrained_model_name_or_path, super().from_pretrained
        if name is None or kwargs.get("gguf_file") is not None:  # the caller's tensors, or a format with its own reader
            return load(name, *model_args, config=config, **kwargs)
        if kwargs.get("use_safetensors") is False:
            raise ValueError("use_safetensors: False is not allowed; pickle files are never read")
        kwargs["use_safetensors"] = True
        directory = Path(name, kwargs.get("subfolder") or "")
        if directory.is_dir() and kwargs.get("variant") is None and not isinstance(config, str | os.PathLike):
            _check(directory, config, kwargs.get("base_model_type"))
        wants_info = kwargs.pop("output_loading_info", False)
        loaded: Any = load(name, *model_args, config=config, output_loading_info=True, **kwargs)
        model, info = loaded
        problems = {kind: sorted(map(str, info[kind])) for kind in ("missing_keys", "unexpected_keys")}
        if model.get_output_embeddings() is None:  # a backbone leaves the head out
            problems["unexpected_keys"] = [key for key in problems["unexpected_keys"] if key != "lm_head.weight"]
        if any(problems.values()):
            raise ValueError(f"{name}: the tensors do not fit config.json; {problems}")
        return loaded if wants_info else model


def _check(directory: Path, config: object, family: str | None) -> None:
    if isinstance(config, PreTrainedConfig):
        checkpoint.refuse_code(directory)
    else:
        config = checkpoint.read_config(directory, checkpoint.CONTROL_LLM_TYPES, family)
    checkpoint.check_tensors(directory, config)
