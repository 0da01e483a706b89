"""Two processes give what one gives: with DDP through the trainer, and with the plan of FSDP2 on a CPU mesh."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from cllm_model.divergence import Divergence
from cllm_model.modeling import ControlLLMForCausalLM
from tests.forked import rank_of, run_all
from tests.serving import free_port
from tests.tiny_training import disturb, expanded, trainer, write_base
from training.arguments import sft_config
from training.distributed import fsdp_arguments, shard, tell_plan, units, whole
from training.losses import masked_mean, mean_divergence
from training.recipe import RecipeError, Train

STEPS = 3


def start(function: Any, processes: int, *arguments: Any) -> None:
    port = free_port()
    assert run_all(function, [(rank, processes, port, *arguments) for rank in range(processes)]) == [0] * processes


def train(
    rank: int, processes: int, port: int, directory: Path, train: dict[str, Any], changes: dict[str, Any]
) -> None:
    with rank_of(rank, processes, port):
        model = expanded(directory / str(rank), factor=0.3, method=changes.pop("method", "dlerp"))
        disturb(model)
        accumulation = train.get("accumulation", 1)
        run = trainer(model, directory, STEPS, train=train, parts=processes * accumulation, save_every=2, **changes)
        assert run.accelerator.num_processes == processes
        run.train()
        save_file(dict(model.state_dict()), directory / f"{rank}.safetensors")
        if rank == 0:
            (directory / "log.json").write_text(json.dumps(run.state.log_history))


CASES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"accumulation": 2, "checkpointing": True}, {"positions": "completion"}),
    ({"checkpointing": True}, {"method": "moe", "divergence": Divergence("cosine", -1.0)}),
]


@pytest.mark.parametrize(("section", "changes"), CASES, ids=["plain", "accumulated", "gate by divergence alone"])
def test_two_processes_train_as_one_does(section: dict[str, Any], changes: dict[str, Any], tmp_path: Path) -> None:
    """The same global batches in the same order, of unequal lengths, with every term of the loss."""
    whole = {name: value for name, value in section.items() if name != "accumulation"}
    for name, processes, settings in (("one", 1, whole), ("two", 2, section)):
        for rank in range(processes):
            write_base(tmp_path / name / str(rank) / "base")
        start(train, processes, tmp_path / name, settings, changes)
    one, two = (json.loads((tmp_path / name / "log.json").read_text()) for name in ("one", "two"))
    for step in range(STEPS):
        for part in ("loss", "divergence", "kl", "gate", "num_tokens"):
            assert two[step][part] == pytest.approx(one[step][part], abs=1e-5), (step, part)
    first, second, alone = (
        load_file(tmp_path / name) for name in ("two/0.safetensors", "two/1.safetensors", "one/0.safetensors")
    )
    for name, tensor in alone.items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], tensor, rtol=0, atol=1e-4, msg=name)
    written = tmp_path / "two" / "run" / "checkpoint-2"
    assert {"rng_state_0.pth", "rng_state_1.pth", "model.safetensors"} <= {path.name for path in written.iterdir()}


def loss_of(model: ControlLLMForCausalLM, batch: Tensor) -> Tensor:
    loss = model(input_ids=batch, labels=batch, use_cache=False).loss
    every = torch.ones_like(batch)
    return loss + masked_mean(mean_divergence(Divergence("mse", 1.0), model.model.branches), every)


def three_updates(model: ControlLLMForCausalLM, batches: list[Tensor]) -> list[float]:
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-2)
    found = []
    for batch in batches:
        loss = loss_of(model, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(loss.item())
    return found


def prepared(directory: Path) -> tuple[ControlLLMForCausalLM, list[Tensor]]:
    model = expanded(directory, factor=0.3)
    disturb(model)
    model.model.keep_branches = True
    generator = torch.Generator().manual_seed(3)
    return model, [torch.randint(5, 90, (4, 12), generator=generator) for _ in range(3)]


def sharded(rank: int, processes: int, port: int, directory: Path, precision: str) -> None:
    with rank_of(rank, processes, port):
        mesh = init_device_mesh("cpu", (processes,))
        model, batches = prepared(directory / str(rank))
        frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
        shard(model, mesh, Train(precision=precision))
        assert len(units(model)) == 6  # two plain layers, two branches of two others
        for name, parameter in model.named_parameters():
            assert isinstance(parameter, DTensor), name
            assert parameter.to_local().numel() <= -(-parameter.shape[0] // processes) * parameter[0].numel()
            assert (not parameter.requires_grad) == (name in frozen)
        # Each process has half of each batch: the mean of their losses is that of the whole.
        losses = three_updates(model, [batch.chunk(processes)[rank] for batch in batches])
        gathered = whole(model)
        assert {name for name, p in gathered.named_parameters() if not p.requires_grad} == frozen
        save_file(dict(gathered.state_dict()), directory / f"{rank}.safetensors")
        mean = torch.tensor(losses)
        torch.distributed.all_reduce(mean)
        if rank == 0:
            (directory / "losses.json").write_text(json.dumps((mean / processes).tolist()))


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 5e-2)])
def test_a_sharded_model_trains_as_a_whole_one_does(precision: str, tolerance: float, tmp_path: Path) -> None:
    for rank in range(2):
        write_base(tmp_path / str(rank) / "base")
    start(sharded, 2, tmp_path, precision)
    model, batches = prepared(tmp_path / "0")
    expected = three_updates(model, batches)
    for rank in range(2):
        gathered = load_file(tmp_path / f"{rank}.safetensors")
        assert gathered.keys() == model.state_dict().keys()
        for name, tensor in model.state_dict().items():
            torch.testing.assert_close(gathered[name], tensor, rtol=0, atol=max(tolerance, 1e-4), msg=name)
    assert json.loads((tmp_path / "losses.json").read_text()) == pytest.approx(expected, abs=tolerance)


def test_accelerate_is_told_the_same_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    section = Train(sharding="fsdp", precision="bf16")
    assert fsdp_arguments(section)["fsdp_config"]["version"] == 2
    args = SimpleNamespace(fsdp_plugin_args={})
    tell_plan(args, expanded(tmp_path), section)
    plan = args.fsdp_plugin_args
    assert plan["transformer_cls_names_to_wrap"] == ["LlamaDecoderLayer"]
    assert plan["mixed_precision_policy"].param_dtype == torch.bfloat16
    assert plan["mixed_precision_policy"].reduce_dtype == torch.float32


def test_sharding_on_a_cpu_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="train.sharding = 'fsdp': needs an accelerator"):
        sft_config(Train(sharding="fsdp"), 0, tmp_path)


def test_an_update_that_cannot_be_shared_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(RecipeError, match="train.batch_size = 32: not a multiple of 3 processes times"):
        sft_config(Train(), 0, tmp_path)
