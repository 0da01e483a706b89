"""Parity with the paper authors' own code, from the data that it computed."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from cllm_model import CausalLMExpansion
from cllm_model.divergence import Divergence

CASES = ["llama_concat_lerp", "llama_concat_dlerp"]


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, golden: Path) -> Path:
    return golden / request.param


@pytest.fixture
def model(case: Path) -> CausalLMExpansion:
    return AutoModelForCausalLM.from_pretrained(case).eval()


@pytest.fixture
def expected(case: Path) -> dict[str, torch.Tensor]:
    return load_file(case / "expected.safetensors")


def test_logits(model, expected):
    with torch.inference_mode():
        logits = model(expected["input_ids"]).logits
    torch.testing.assert_close(logits, expected["logits"], rtol=0, atol=1e-5)


def test_hidden_states(model, expected):
    with torch.inference_mode():
        hidden = model(expected["input_ids"], output_hidden_states=True).hidden_states
    torch.testing.assert_close(torch.stack(hidden), expected["hidden_states"], rtol=0, atol=1e-5)


def test_padded_logits(model, expected):
    mask = expected["padded_attention_mask"]
    with torch.inference_mode():
        logits = model(expected["padded_input_ids"], attention_mask=mask).logits
    real = mask.bool()
    torch.testing.assert_close(logits[real], expected["padded_logits"][real], rtol=0, atol=1e-5)


@pytest.mark.parametrize("use_cache", [True, False])
def test_greedy_tokens(model, expected, use_cache):
    prompt, wanted = expected["input_ids"], expected["generated"]
    generated = model.generate(
        prompt,
        max_new_tokens=wanted.shape[1] - prompt.shape[1],
        do_sample=False,
        use_cache=use_cache,
        eos_token_id=None,
        pad_token_id=0,
    )
    assert generated.tolist() == wanted.tolist()


@pytest.mark.parametrize("loss", ["cosine", "mse"])
@pytest.mark.parametrize("alpha", [-1, 1.0])
def test_divergence(case, model, expected, loss, alpha):
    """The authors average over every token of every dual-branch layer."""
    wanted = json.loads((case / "expected.json").read_text())["divergence_losses_train"][f"{loss}|alpha={alpha}"]
    model.model.keep_branches = True
    with torch.inference_mode():
        model(expected["input_ids"])
    divergence = Divergence(loss, alpha)
    losses = {
        str(i): divergence(branches).item()
        for i, branches in model.model.branches.items()
    }
    assert losses == pytest.approx(wanted["per_layer"], abs=1e-6)
    assert sum(losses.values()) / len(losses) == pytest.approx(wanted["additional_loss"], abs=1e-6)


def test_divergence_gradient_reaches_what_trains(case, model, expected):
    """Gradient norms of one training step, cross entropy plus cosine divergence weighted by the layer itself."""
    wanted = json.loads((case / "expected.json").read_text())["train_step"]["cosine|alpha=-1"]
    model.freeze_pretrained()
    model.model.keep_branches = True
    loss = model(expected["input_ids"], labels=expected["input_ids"]).loss
    divergence = Divergence("cosine", -1)
    terms = [divergence(b) for b in model.model.branches.values()]
    loss = loss + sum(terms) / len(terms)
    loss.backward()
    assert loss.item() == pytest.approx(wanted["total_loss"], abs=1e-5)
    from cllm_model.names import to_checkpoint

    norms = {
        to_checkpoint(name): parameter.grad.norm().item()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    assert norms == pytest.approx(wanted["grad_norm"], rel=1e-3, abs=1e-6)


def test_saved_again_it_is_the_same_file(case, model, tmp_path):
    model.save_pretrained(tmp_path)
    ours, theirs = load_file(tmp_path / "model.safetensors"), load_file(case / "model.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    reread = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(reread) is CausalLMExpansion
    assert reread.config.dual == model.config.dual
