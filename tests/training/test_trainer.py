"""The trainer: what trains, what is added to the loss, and what stops it."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset

from cllm_model.divergence import OWN_WEIGHT, Divergence
from cllm_model.interpolators import MERGE_METHODS
from tests.tiny_training import Gradients, disturb, expanded, rows, trainer
from training import callbacks, precision
from training.losses import divergence_tokens, masked_mean, mixing, pool_kl
from training.recipe import Rehearsal
from training.trainer import NotFinite


def test_the_base_stays_and_the_log_shows_the_terms(tmp_path: Path) -> None:
    dual = expanded(tmp_path)
    before = {name: tensor.clone() for name, tensor in dual.named_parameters()}
    ids = torch.randint(5, 90, (2, 9), generator=torch.Generator().manual_seed(0))
    base = dual(ids, control_scale=0.0).logits
    run = trainer(dual, tmp_path)
    run.train()
    changed = {name for name, tensor in dual.named_parameters() if not torch.equal(tensor, before[name])}
    assert changed == {n for n in before if ".expanded_layer." in n or ".interpolator." in n}
    assert torch.equal(dual(ids, control_scale=0.0).logits, base)
    log = run.state.log_history[0]
    # A fresh expansion is the base: nothing diverges yet, and the interpolation weight is sigmoid(-1).
    assert log["divergence"] == pytest.approx(0, abs=1e-9)
    assert log["gate"] == pytest.approx(torch.tensor(-1.0).sigmoid().item(), abs=1e-4)
    assert log["kl"] > 0
    assert run.state.log_history[2]["divergence"] > 0


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
def test_every_expansion_trains_what_it_added(method: str, options: dict[str, Any], tmp_path: Path) -> None:
    """All of it moves within three updates, the rest is bit-identical, and so is the base at scale 0."""
    model = expanded(tmp_path, 2, method, **{"factor": 0.3} | options)
    before = {name: tensor.clone() for name, tensor in model.named_parameters()}
    stacked = tuple(f"model.layers.{layer}." for layer in model.config.dual.stacked_layers)
    added = {n for n in before if ".expanded_layer." in n or ".interpolator." in n or n.startswith(stacked)}
    if options.get("freeze_factor"):
        added -= {name for name in added if name.endswith(("factor", ".fc.bias", ".gate.bias"))}
    ids = torch.randint(5, 90, (2, 9), generator=torch.Generator().manual_seed(0))
    base = model(ids, control_scale=0.0).logits
    divergence = Divergence("mse", -1 if method == "moe" else 1.0) if model.config.dual.expanded_layers else None
    run = trainer(model, tmp_path, divergence=divergence)
    run.rehearsal = Rehearsal(gate=0.0)
    run.train()
    changed = {name for name, tensor in model.named_parameters() if not torch.equal(tensor, before[name])}
    assert changed == added
    assert torch.equal(model(ids, control_scale=0.0).logits, base)
    log = run.state.log_history[2]
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
@pytest.mark.parametrize("loss", ["mse", "cosine", "cosine_linear"])
@pytest.mark.parametrize("method", MERGE_METHODS)
def test_what_the_divergence_alone_teaches(method: str, loss: str, weight: float, tmp_path: Path) -> None:
    model = expanded(tmp_path, 2, method, 0.3)
    disturb(model)
    model.model.keep_branches = True
    model(torch.randint(5, 90, (8, 9), generator=torch.Generator().manual_seed(0)))
    last = model.model.layers[3]
    Divergence(loss, weight)(model.model.branches[3]).backward()
    moved = {name for name, p in last.interpolator.named_parameters() if p.grad is not None and p.grad.any()}
    assert moved == LEARNS[method][weight == OWN_WEIGHT]
    assert all(p.grad is not None and p.grad.any() for p in last.expanded_layer.parameters())
    assert all(p.grad is None for p in last.pretrained_layer.parameters())


def test_a_divergence_that_cannot_work_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="divergence: a stacked expansion has no branches"):
        trainer(expanded(tmp_path, 2, "lerp", 0.0, kind="stack"), tmp_path)


@pytest.mark.parametrize("divergence", [None, Divergence("mse", 1.0)])
def test_a_choice_is_not_trained_without_its_own_weight(divergence: Divergence | None, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="gate of merge method 'moe' no gradient.* only a weight of -1 does"):
        trainer(expanded(tmp_path, 2, "moe", 0.3), tmp_path, divergence=divergence)


@pytest.mark.parametrize("positions", ["all", "prompt", "completion", "published"])
def test_the_divergence_is_added_as_a_mean_over_the_chosen_tokens(positions: str, tmp_path: Path) -> None:
    dual = expanded(tmp_path)
    disturb(dual)
    run = trainer(dual, tmp_path, rehearse=False, positions=positions)
    run.create_optimizer()
    dual.eval()
    batch = run._prepare_inputs(next(iter(run.get_train_dataloader())))
    with_term = run.compute_loss(dual, dict(batch))
    run.divergence = None
    without = run.compute_loss(dual, dict(batch))
    dual(batch["input_ids"], attention_mask=batch["attention_mask"])
    distances = [(b.pretrained - b.expanded).square().mean(-1) for b in dual.model.branches.values()]
    chosen = {
        "all": batch["attention_mask"] == 1,
        "prompt": (batch["attention_mask"] == 1) & (batch["labels"] == -100),
        "completion": batch["labels"] != -100,
        "published": torch.ones_like(batch["labels"]).bool(),
    }[positions]
    assert not batch["attention_mask"].all()
    expected = sum(distance[chosen].mean() for distance in distances) / len(distances)
    assert (with_term - without).item() == pytest.approx(expected.item(), rel=1e-4)


def test_gate_learning_rate(tmp_path: Path) -> None:
    dual = expanded(tmp_path)
    groups = trainer(dual, tmp_path, gate_learning_rate=0.5).create_optimizer().param_groups
    names = {id(p): name for name, p in dual.named_parameters()}
    rates = {names[id(p)]: group["lr"] for group in groups for p in group["params"]}
    assert all((rate == 0.5) == (".interpolator." in name) for name, rate in rates.items())
    assert len(rates) == sum(p.requires_grad for p in dual.parameters())


def test_frozen_interpolators_stay(tmp_path: Path) -> None:
    dual = expanded(tmp_path)
    before = {name: p.clone() for name, p in dual.named_parameters() if ".interpolator." in name}
    dual.freeze_interpolators()
    trainer(dual, tmp_path).train()
    assert all(torch.equal(dual.get_parameter(name), tensor) for name, tensor in before.items())


def one_update(directory: Path, train: dict[str, Any], in_bf16: bool = False) -> dict[str, torch.Tensor]:
    dual = expanded(directory)
    if in_bf16:
        dual.to(torch.bfloat16)
    disturb(dual)
    precision.trained_in_fp32(dual)
    seen = Gradients()
    trainer(dual, directory, steps=1, train=train, callbacks=[seen]).train()
    [found] = seen.found
    return found


@pytest.mark.parametrize("checkpointing", [False, True])
def test_bf16_computes_the_gradient_roughly_and_keeps_it_in_fp32(checkpointing: bool, tmp_path: Path) -> None:
    exact = one_update(tmp_path, {})
    rough = one_update(tmp_path, {"precision": "bf16", "checkpointing": checkpointing}, in_bf16=True)
    assert all(gradient.dtype == torch.float32 for gradient in rough.values())
    whole, other = (torch.cat([found[name].flatten() for name in exact]) for found in (exact, rough))
    assert torch.nn.functional.cosine_similarity(whole, other, dim=0) > 0.99
    assert not torch.equal(whole, other)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_compiled_layers_give_the_same_gradient(checkpointing: bool, tmp_path: Path) -> None:
    torch._dynamo.reset()
    plain = one_update(tmp_path, {})
    dual = expanded(tmp_path)
    disturb(dual)
    graphs: list[Any] = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    precision.compile_layers(dual, backend=backend)
    seen = Gradients()
    trainer(dual, tmp_path, steps=1, train={"checkpointing": checkpointing}, callbacks=[seen]).train()
    assert graphs
    for name, gradient in seen.found[0].items():
        torch.testing.assert_close(gradient, plain[name], rtol=1e-4, atol=1e-6, msg=name)
    assert set(dual.state_dict()) == set(expanded(tmp_path).state_dict())


@pytest.mark.parametrize("checkpointing", [False, True])
def test_no_gradient_goes_through_the_frozen_layers_below(checkpointing: bool, tmp_path: Path) -> None:
    dual = expanded(tmp_path, [2])
    seen: list[bool] = []
    dual.model.layers[1].register_forward_hook(lambda module, inputs, output: seen.append(output.requires_grad))
    trainer(dual, tmp_path, steps=1, train={"checkpointing": checkpointing}).train()
    assert seen and not any(seen)


def with_token(token: int, row: int, data: Dataset) -> Dataset:
    """The data with a token of its own at the end of one row."""
    found = data.to_list()
    for name in ("input_ids", "labels"):
        found[row][name][-1] = token
    return Dataset.from_list(found)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_loss_that_is_no_number_ends_the_training_before_it_does_harm(accumulation: int, tmp_path: Path) -> None:
    dual = expanded(tmp_path)
    with torch.no_grad():
        dual.model.embed_tokens.weight[95] = torch.nan
    data = with_token(95, 9, rows(4))
    data = data.add_column("where", [f"new.jsonl:{number}" for number in range(len(data))])
    run = trainer(dual, tmp_path, 4, train={"accumulation": accumulation}, save_every=1, train_dataset=data)
    with pytest.raises(
        NotFinite, match=r"the loss is nan in update 3 of 4, .* rows 8 to 11 .*\(new.jsonl:10, .*new.jsonl:9\)"
    ):
        run.fit()
    assert all(p.isfinite().all() for p in dual.parameters() if p.requires_grad)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"checkpoint-1", "checkpoint-2"}


def test_a_gradient_that_is_no_number_is_not_applied(tmp_path: Path) -> None:
    dual = expanded(tmp_path)
    dual.model.layers[1].expanded_layer.mlp.down_proj.weight.register_hook(lambda grad: grad * torch.inf)
    before = {name: p.clone() for name, p in dual.named_parameters()}
    with pytest.raises(NotFinite, match="gradient's norm is (nan|inf) in update 1 of 3"):
        trainer(dual, tmp_path).fit()
    assert all(torch.equal(p, before[name]) for name, p in dual.named_parameters())


def test_the_log_tells_parts_pace_and_time_left(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="training.callbacks"):
        trainer(expanded(tmp_path), tmp_path).fit()
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 3
    assert lines[0].startswith("step 1 of 3: loss ")
    assert all(part in lines[0] for part in ("divergence", "kl", "gate", "tokens/s", "left"))
    assert lines[2].endswith("0:00:00 left")


def test_a_terminal_gets_a_bar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(callbacks.sys.stderr, "isatty", lambda: True, raising=False)
    trainer(expanded(tmp_path), tmp_path).fit()
    drawn = capsys.readouterr().err
    assert "3/3" in drawn
    assert "divergence=" in drawn and "tokens/s=" in drawn


def test_what_is_masked_counts_nothing_even_if_it_is_no_number() -> None:
    assert masked_mean(torch.tensor([[1.0, 3.0, torch.inf]]), torch.tensor([[1, 1, 0]])) == 2.0


def test_tokens_of_the_divergence_without_an_attention_mask() -> None:
    """Packed rows have none, and no padding."""
    batch = {"input_ids": torch.zeros(1, 3), "labels": torch.tensor([[-100, 5, 6]])}
    assert divergence_tokens(batch, "all").tolist() == [[True, True, True]]
    assert divergence_tokens(batch, "prompt").tolist() == [[True, False, False]]


@pytest.mark.parametrize("kept", [3, 7])
def test_the_kl_of_a_pool_is_that_of_all_tokens_where_all_are_kept_and_less_elsewhere(kept: int) -> None:
    generator = torch.Generator().manual_seed(0)
    base, model = torch.randn(2, 2, 3, 7, generator=generator)
    logprobs = base.log_softmax(-1)
    top, ids = logprobs.topk(kept, dim=-1)
    rest = logprobs.scatter(-1, ids, -torch.inf).logsumexp(-1).clamp_min(-30)
    found = pool_kl({"top_ids": ids, "top_logprobs": top, "rest_logprobs": rest}, model)
    whole = (logprobs.exp() * (logprobs - model.log_softmax(-1))).sum(-1)
    if kept == 7:
        torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-5)
    else:
        assert (found < whole).all() and (found > 0).all()


def test_mixing(tmp_path: Path) -> None:
    dual = expanded(tmp_path)
    dual.model.keep_branches = True
    dual(torch.randint(5, 90, (2, 9)))
    found = mixing(dual.model.branches, torch.ones(2, 9))
    assert set(found) == {1, 3}
    assert found[1]["alignment"] == pytest.approx(1, abs=1e-5)
    assert found[1]["weight"] == pytest.approx(torch.tensor(-1.0).sigmoid().item(), abs=1e-5)
