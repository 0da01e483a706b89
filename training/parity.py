"""The parity gate: a finished checkpoint is loaded again and compared before a run is called done.

In Hugging Face, always: with the model in memory, and at scale 0 with the base. In vLLM, where it is installed, in a
process of its own: the log-probabilities of the prompts' own tokens, in fp32. What was not compared is said with the
reason, never left out.
"""

import json
import logging
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

import cllm_model  # noqa: F401 - registers the model
from cllm_model import checkpoint
from cllm_model.scale import MIN_SCALE, TRAINED_SCALE
from training.evaluation.generation import at_scale, has_dial

log = logging.getLogger(__name__)
RELOAD_TOLERANCE = 1e-5
VLLM_TOLERANCE = 1e-3
_TIMEOUT_S = 1800  # the first start of an engine on a busy machine


@dataclass(frozen=True)
class Parity:
    """What was compared, and what was not.

    Attributes:
        differences: Name of a check -> the largest difference; of logits, or of log-probabilities in vLLM's.
        skipped: Name of a check -> why it was left out.
    """

    differences: dict[str, float]
    skipped: dict[str, str]


def check(
    directory: Path,
    model: PreTrainedModel,
    base: PreTrainedModel | None,
    prompts: Sequence[list[int]],
    vllm: bool = True,
) -> Parity:
    """Compare a checkpoint with the model that it was written from, and with that model's base.

    Args:
        directory: The checkpoint, expanded or plain.
        model: The model in memory.
        base: The base in memory, in the model's dtype; None if there is none to compare with.
        prompts: Token ids of some texts.
        vllm: Compare in vLLM too, if it is installed.

    Raises:
        RuntimeError: A difference is larger than allowed, or vLLM failed; names the check and the figures.
        CheckpointError: The checkpoint is not whole.
    """
    config = checkpoint.read_config(directory, (*checkpoint.CONTROL_LLM_TYPES, model.config.model_type))
    checkpoint.check_tensors(directory, config)
    differences, skipped = {}, {}
    loaded = _load(directory, model.dtype, model.device)
    differences["reload"] = _largest(_logits(loaded, prompts), _logits(model, prompts))
    if not has_dial(model):
        skipped["base_at_scale_0"] = "a plain checkpoint has no dial"
    elif base is None:
        skipped["base_at_scale_0"] = "there is no base in memory"
    else:
        differences["base_at_scale_0"] = _largest(_logits(loaded, prompts, MIN_SCALE), _logits(base, prompts))
    _refuse(differences, RELOAD_TOLERANCE)

    scales = [MIN_SCALE, TRAINED_SCALE] if has_dial(model) else [TRAINED_SCALE]
    given = _in_vllm(directory, prompts, scales) if vllm else "switched off by evaluation.vllm_parity"
    if isinstance(given, str):
        skipped |= {_vllm(scale): given for scale in scales}
    else:
        loaded = _load(directory, torch.float32, model.device)
        for scale, found in zip(scales, given, strict=True):
            expected = map(_own, _logits(loaded, prompts, scale), prompts)
            differences[_vllm(scale)] = _largest(list(map(torch.tensor, found)), list(expected))
        _refuse({name: differences[name] for name in map(_vllm, scales)}, VLLM_TOLERANCE)
    for name, reason in skipped.items():
        log.warning("check %s was left out: %s", name, reason)
    return Parity(differences, skipped)


def _vllm(scale: float) -> str:
    return f"vllm_at_scale_{scale:g}"


def _load(directory: Path, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    model: Any = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype)
    return model.to(device)


@torch.inference_mode()
def _logits(model: PreTrainedModel, prompts: Sequence[list[int]], scale: float = TRAINED_SCALE) -> list[Tensor]:
    """Logits of each prompt alone, (T, V), fp32 on the CPU."""
    with at_scale(model, scale):
        return [model(torch.tensor([ids], device=model.device)).logits[0].float().cpu() for ids in prompts]


def _own(logits: Tensor, prompt: list[int]) -> Tensor:
    """Log-probabilities of a prompt's own tokens but the first: (T, V) -> (T - 1,)."""
    return logits[:-1].log_softmax(dim=-1).gather(1, torch.tensor(prompt)[1:, None]).squeeze(1)


def _largest(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    return max((a - b).abs().max().item() for a, b in zip(found, expected, strict=True))


def _refuse(differences: Mapping[str, float], tolerance: float) -> None:
    """Fail where a difference is too large, or not a number."""
    wrong = {name: value for name, value in differences.items() if not value <= tolerance}
    if wrong:
        figures = ", ".join(f"{name} {value:.3g}" for name, value in wrong.items())
        raise RuntimeError(f"the checkpoint is not what was trained: {figures}; allowed {tolerance:g}")


def _in_vllm(directory: Path, prompts: Sequence[list[int]], scales: Sequence[float]) -> list[list[list[float]]] | str:
    """Log-probabilities by scale and prompt, or why there are none.

    Raises:
        RuntimeError: vLLM ended without an answer.
    """
    if find_spec("vllm") is None:
        return "vllm is not installed"
    done = subprocess.run(
        [sys.executable, "-m", "training.parity_vllm", str(directory)],
        input=json.dumps({"tokens": list(prompts), "scales": list(scales)}),
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
    )
    if done.returncode:
        raise RuntimeError(f"vLLM cannot run the checkpoint: {done.stderr[-2000:]}")
    answer = json.loads(done.stdout)
    return answer.get("log_probabilities") or f"vLLM: {answer['refused']}"
