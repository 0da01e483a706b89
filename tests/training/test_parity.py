"""The parity gate: what passes, what fails a run, what is left out and said to be. With a real engine: tests/vllm."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tests import tiny_models
from training import parity

PROMPTS = [[5, 9, 30, 31, 8], [40, 41]]
VLLM = ["vllm_at_scale_0", "vllm_at_scale_1"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.write_base(tmp_path_factory.mktemp("parity") / "base")


@pytest.fixture
def dual(base: Path, tmp_path: Path) -> Path:
    return tiny_models.write_dual(base, tmp_path / "dual")


def load(path: Path, dtype: torch.dtype = torch.float32) -> Any:
    return AutoModelForCausalLM.from_pretrained(path, dtype=dtype).eval()


def change(path: Path, name: str, by: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Change the tensor whose name ends so, in the checkpoint's file."""
    tensors = load_file(path / "model.safetensors")
    [found] = [tensor for tensor in tensors if tensor.endswith(name)]
    save_file(tensors | {found: by(tensors[found])}, path / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_checkpoint_that_is_what_was_trained(dtype: torch.dtype, base: Path, dual: Path) -> None:
    load(dual, dtype).save_pretrained(dual)
    found = parity.check(dual, load(dual, dtype), load(base, dtype), PROMPTS, vllm=False)
    assert found.differences == {"reload": 0, "base_at_scale_0": 0}
    assert found.skipped == dict.fromkeys(VLLM, "switched off by evaluation.vllm_parity")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("layers.3.expanded_layer.mlp.down_proj.weight", "reload [0-9.e-]+; allowed 1e-05"),
        ("layers.3.pretrained_layer.mlp.down_proj.weight", "reload .*, base_at_scale_0 "),
    ],
)
def test_a_broken_checkpoint_fails_the_run(name: str, said: str, base: Path, dual: Path) -> None:
    trained = load(dual)
    change(dual, name, lambda tensor: tensor + 1e-3)
    with pytest.raises(RuntimeError, match=said):
        parity.check(dual, trained, load(base), PROMPTS, vllm=False)


def test_a_checkpoint_of_nan_fails_the_run(dual: Path) -> None:
    change(dual, "layers.3.expanded_layer.mlp.down_proj.weight", lambda tensor: tensor * torch.nan)
    with pytest.raises(RuntimeError, match="reload nan"):
        parity.check(dual, load(dual), None, PROMPTS, vllm=False)


def test_a_base_that_moved_fails_the_run(base: Path, dual: Path) -> None:
    moved = load(base)
    moved.model.norm.weight.data += 1e-3
    with pytest.raises(RuntimeError, match="base_at_scale_0"):
        parity.check(dual, load(dual), moved, PROMPTS, vllm=False)


def test_what_is_left_out_is_said(base: Path, dual: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "find_spec", lambda name: None)
    found = parity.check(dual, load(dual), None, PROMPTS)
    assert found.skipped == {"base_at_scale_0": "there is no base in memory"} | dict.fromkeys(
        VLLM, "vllm is not installed"
    )
    plain = parity.check(base, load(base), load(base), PROMPTS)
    assert plain.differences == {"reload": 0}
    assert set(plain.skipped) == {"base_at_scale_0", "vllm_at_scale_1"}


def log_probabilities(model: Any, scale: float) -> list[list[float]]:
    found = []
    for prompt in PROMPTS:
        logits = model(torch.tensor([prompt]), control_scale=scale).logits[0].log_softmax(-1)
        found.append([logits[i, token].item() for i, token in enumerate(prompt[1:])])
    return found


def test_vllm_is_compared_at_both_scales(dual: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of the process, what it would answer: the truth, then with one figure of one scale changed."""
    given = [log_probabilities(load(dual), scale) for scale in (0.0, 1.0)]
    monkeypatch.setattr(parity, "_in_vllm", lambda *arguments: given)
    found = parity.check(dual, load(dual), None, PROMPTS)
    assert all(found.differences[name] < 1e-5 for name in VLLM) and not set(VLLM) & set(found.skipped)
    given[0][1][0] += 2e-3
    with pytest.raises(RuntimeError, match=r"vllm_at_scale_0 0.002; allowed 0.001"):
        parity.check(dual, load(dual), None, PROMPTS)


def test_vllm_that_fails_or_refuses(dual: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(code: int, out: str, err: str) -> Callable[..., Any]:
        return lambda *arguments, **options: parity.subprocess.CompletedProcess([], code, out, err)

    monkeypatch.setattr(parity, "find_spec", lambda name: True)
    monkeypatch.setattr(parity.subprocess, "run", ended(0, '{"refused": "head_dim: 8 is not supported"}', ""))
    assert parity.check(dual, load(dual), None, PROMPTS).skipped["vllm_at_scale_0"] == (
        "vLLM: head_dim: 8 is not supported"
    )
    monkeypatch.setattr(parity.subprocess, "run", ended(1, "", "the engine died"))
    with pytest.raises(RuntimeError, match="vLLM cannot run the checkpoint: the engine died"):
        parity.check(dual, load(dual), None, PROMPTS)
