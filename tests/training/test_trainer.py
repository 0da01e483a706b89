"""The dual-branch trainer: what trains, what is added to the loss, and self-rehearsal."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from cllm_model.divergence import OWN_WEIGHT, Divergence
from cllm_model.expand import expand
from cllm_model.interpolators import MERGE_METHODS
from cllm_model.modeling import ControlLLMForCausalLM
from training import data, rehearsal
from training.losses import masked_mean, mixing, token_kl
from training.recipe import Rehearsal, Train
from training.tokenizer import character_tokenizer
from training.trainer import ControlTrainer, sft_config


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    return character_tokenizer(64)


@pytest.fixture
def expanded(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> Callable[..., ControlLLMForCausalLM]:
    """Returns a function (`expand`'s arguments) -> fresh expansion of a tiny base."""

    def build(layers: int | list[int], method: str, factor: float | None, **options: Any) -> ControlLLMForCausalLM:
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=4,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=64,
            initializer_range=0.2,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
        LlamaForCausalLM(config).save_pretrained(tmp_path / "base")
        expand(tmp_path / "base", tmp_path / "dual", layers, method, factor, **options)
        return ControlLLMForCausalLM.from_pretrained(tmp_path / "dual")

    return build


@pytest.fixture
def dual(expanded: Callable[..., ControlLLMForCausalLM]) -> ControlLLMForCausalLM:
    return expanded(2, "dlerp", -1.0)


def pool(tokenizer: PreTrainedTokenizerFast, parts: int) -> Iterator[dict[str, torch.Tensor]]:
    rows = [data.encode(tokenizer, chat)["input_ids"] for chat in data.mixture({"add": 1}, 8, seed=1)]
    return rehearsal.batches(rows, 4, parts, tokenizer.pad_token_id, seed=0)


def trainer_of(
    dual: ControlLLMForCausalLM, tokenizer: PreTrainedTokenizerFast, directory: Path, **changes: Any
) -> ControlTrainer:
    train = Train(steps=3, batch_size=8, accumulation=changes.pop("accumulation", 1), warmup_steps=0, log_every=1)
    settings: dict[str, Any] = {"divergence": Divergence("mse", 1.0), "rehearsal": None, "pool": None} | changes
    rows = data.dataset(tokenizer, data.mixture({"compare": 1}, 24, seed=0), 8)
    args = sft_config(train, 0, directory)
    return ControlTrainer(model=dual, args=args, train_dataset=rows, processing_class=tokenizer, **settings)


def test_the_base_stays_and_the_log_shows_the_terms(
    dual: ControlLLMForCausalLM, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    before = {name: tensor.clone() for name, tensor in dual.named_parameters()}
    ids = torch.randint(5, 90, (2, 9), generator=torch.Generator().manual_seed(0))
    base = dual(ids, control_scale=0.0).logits
    trainer = trainer_of(dual, tokenizer, tmp_path, rehearsal=Rehearsal(), pool=pool(tokenizer, 1))
    trainer.train()
    changed = {name for name, tensor in dual.named_parameters() if not torch.equal(tensor, before[name])}
    assert changed == {n for n in before if ".expanded_layer." in n or ".interpolator." in n}
    assert torch.equal(dual(ids, control_scale=0.0).logits, base)
    log = trainer.state.log_history[0]
    # A fresh expansion is the base: nothing diverges yet, and the interpolation weight is sigmoid(-1).
    assert log["divergence"] == pytest.approx(0, abs=1e-9)
    assert log["kl"] == pytest.approx(0, abs=1e-5)
    assert log["gate"] == pytest.approx(torch.tensor(-1.0).sigmoid().item(), abs=1e-4)
    assert trainer.state.log_history[2]["divergence"] > 0


CASES = [
    pytest.param("lerp", {"kind": "stack"}, id="stack"),
    pytest.param("lerp", {"factor": None}, id="null factor"),
    pytest.param("lerp", {"norm_alpha": 0.2}, id="fixed norm"),
    pytest.param("lerp", {"norm_alpha": -1}, id="dynamic norm"),
    pytest.param("lerp", {"norm_alpha": -1, "freeze_factor": True}, id="dynamic norm, frozen"),
    *(
        pytest.param(method, {"kind": kind, "freeze_factor": frozen}, id=f"{kind} {method}{', frozen' * frozen}")
        for kind, frozen in (("concat", False), ("concat", True), ("hybrid", False))
        for method in MERGE_METHODS
    ),
]


@pytest.mark.parametrize(("method", "options"), CASES)
def test_every_expansion_trains_what_it_added(
    method: str,
    options: dict[str, Any],
    expanded: Callable[..., ControlLLMForCausalLM],
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
) -> None:
    """All of it moves within three updates, the rest is bit-identical, and so is the base at scale 0."""
    model = expanded(2, method, **{"factor": 0.3} | options)
    before = {name: tensor.clone() for name, tensor in model.named_parameters()}
    stacked = tuple(f"model.layers.{layer}." for layer in model.config.dual.stacked_layers)
    added = {n for n in before if ".expanded_layer." in n or ".interpolator." in n or n.startswith(stacked)}
    if options.get("freeze_factor"):
        added -= {name for name in added if name.endswith(("factor", ".fc.bias", ".gate.bias"))}
    ids = torch.randint(5, 90, (2, 9), generator=torch.Generator().manual_seed(0))
    base = model(ids, control_scale=0.0).logits
    divergence = Divergence("mse", -1 if method == "moe" else 1.0) if model.config.dual.expanded_layers else None
    trainer = trainer_of(
        model, tokenizer, tmp_path, divergence=divergence, rehearsal=Rehearsal(gate=0.0), pool=pool(tokenizer, 1)
    )
    trainer.train()
    changed = {name for name, tensor in model.named_parameters() if not torch.equal(tensor, before[name])}
    assert changed == added
    assert torch.equal(model(ids, control_scale=0.0).logits, base)
    log = trainer.state.log_history[2]
    layers = {key.partition("/")[2] for key in log if key.startswith("weight_new/")}
    assert layers == {str(layer) for layer in model.config.dual.expanded_layers}
    assert ("divergence" in log) == ("gate" in log) == bool(layers)


# What the divergence loss of a layer gives a gradient in the layer's own interpolator, at weight 1 and at its own.
LEARNS = {
    "lerp": (set(), {"factor"}),
    "slerp": (set(), {"factor"}),
    "dlerp": (set(), {"fc.weight", "fc.bias"}),
    "dlerpin": (set(), {"fc.weight", "fc.bias"}),
    "moe": (set(), {"gate.weight", "gate.bias"}),
    "proj": ({"linear_proj.weight"}, {"factor", "linear_proj.weight"}),
    "prog": (set(), {"factor"}),
}


@pytest.mark.parametrize("weight", [1.0, OWN_WEIGHT])
@pytest.mark.parametrize("loss", ["mse", "cosine"])
@pytest.mark.parametrize("method", MERGE_METHODS)
def test_what_the_divergence_alone_teaches(
    method: str, loss: str, weight: float, expanded: Callable[..., ControlLLMForCausalLM]
) -> None:
    model = expanded(2, method, 0.3)
    model.freeze_pretrained()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    model.model.keep_branches = True
    model(torch.randint(5, 90, (8, 9), generator=generator))
    last = model.model.layers[3]
    Divergence(loss, weight)(model.model.branches[3]).backward()
    moved = {name for name, p in last.interpolator.named_parameters() if p.grad is not None and p.grad.any()}
    assert moved == LEARNS[method][weight == OWN_WEIGHT]
    assert all(p.grad is not None and p.grad.any() for p in last.expanded_layer.parameters())
    assert all(p.grad is None for p in last.pretrained_layer.parameters())


def test_a_divergence_that_cannot_work_is_refused(
    expanded: Callable[..., ControlLLMForCausalLM], tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="divergence: a stacked expansion has no branches"):
        trainer_of(expanded(2, "lerp", 0.0, kind="stack"), tokenizer, tmp_path / "stack")


@pytest.mark.parametrize("divergence", [None, Divergence("mse", 1.0)])
def test_a_choice_is_not_trained_without_its_own_weight(
    divergence: Divergence | None,
    expanded: Callable[..., ControlLLMForCausalLM],
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
) -> None:
    with pytest.raises(ValueError, match="gate of merge method 'moe' no gradient.* only a weight of -1 does"):
        trainer_of(expanded(2, "moe", 0.3), tokenizer, tmp_path, divergence=divergence)


def test_divergence_is_added_and_its_gradient_arrives(
    dual: ControlLLMForCausalLM, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    with torch.no_grad():
        dual.model.layers[1].expanded_layer.mlp.down_proj.weight.mul_(1.5)
    trainer = trainer_of(dual, tokenizer, tmp_path)
    trainer.create_optimizer()
    dual.train()
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    with_term = trainer.compute_loss(dual, dict(batch))
    branches = dual.model.branches
    expected = torch.stack(
        [
            (b.pretrained - b.expanded).square().mean(-1)[batch["attention_mask"].bool()].mean()
            for b in branches.values()
        ]
    ).mean()
    trainer.divergence = None
    without = trainer.compute_loss(dual, dict(batch))
    assert (with_term - without).item() == pytest.approx(expected.item(), rel=1e-4)
    expected.backward()
    assert dual.model.layers[1].expanded_layer.mlp.down_proj.weight.grad.abs().sum() > 0


def test_accumulation_does_not_change_the_update(
    dual: ControlLLMForCausalLM, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    start = {name: tensor.clone() for name, tensor in dual.state_dict().items()}
    found = []
    for accumulation in (1, 2):
        dual.load_state_dict(start)
        # The divergence is a mean over a micro-batch's tokens: equal only where those have as many tokens.
        trainer = trainer_of(dual, tokenizer, tmp_path, divergence=None, accumulation=accumulation)
        trainer.train()
        found.append(dual.model.layers[1].expanded_layer.mlp.down_proj.weight.detach().clone())
    assert torch.allclose(*found, atol=1e-5)


def test_gate_learning_rate(dual: ControlLLMForCausalLM, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    trainer = trainer_of(dual, tokenizer, tmp_path, gate_learning_rate=0.5)
    groups = trainer.create_optimizer().param_groups
    names = {id(p): name for name, p in dual.named_parameters()}
    rates = {names[id(p)]: group["lr"] for group in groups for p in group["params"]}
    assert all((rate == 0.5) == (".interpolator." in name) for name, rate in rates.items())
    assert len(rates) == sum(p.requires_grad for p in dual.parameters())


def test_losses() -> None:
    logits = torch.randn(2, 3, 5)
    assert token_kl(logits, logits).abs().max() < 1e-6
    assert (token_kl(logits, logits.flip(-1)) > 0).all()
    assert masked_mean(torch.tensor([[1.0, 3.0, 9.0]]), torch.tensor([[1, 1, 0]])) == 2.0


def test_mixing(dual: ControlLLMForCausalLM) -> None:
    dual.model.keep_branches = True
    dual(torch.randint(5, 90, (2, 9)))
    found = mixing(dual.model.branches, torch.ones(2, 9))
    assert set(found) == {1, 3}
    assert found[1]["alignment"] == pytest.approx(1, abs=1e-5)
    assert found[1]["weight"] == pytest.approx(torch.tensor(-1.0).sigmoid().item(), abs=1e-5)


def test_rehearsal_starts_behind_the_template(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.decode(rehearsal.opening(tokenizer)) == "<|user|>"


def test_rehearsal_of_a_base_that_never_ends_is_a_clear_failure(
    dual: ControlLLMForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(RuntimeError, match="answers only"):
        rehearsal.sample(dual, tokenizer, Rehearsal(sequences=128, batch_size=4, max_tokens=1), seed=0)
    assert dual.control_scale == 1.0


def test_rehearsed_updates_are_split_by_length(tokenizer: PreTrainedTokenizerFast) -> None:
    rows = [[7] * length for length in range(1, 33)]
    batches = rehearsal.batches(rows, 8, 2, tokenizer.pad_token_id, seed=0)
    short, long = next(batches), next(batches)
    assert short["input_ids"].shape[0] == long["input_ids"].shape[0] == 4
    assert short["attention_mask"].sum(1).max() <= long["attention_mask"].sum(1).min()
