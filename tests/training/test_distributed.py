"""Two processes give what one gives: with DDP through the trainer, and with the plan of FSDP2 on a CPU mesh."""

import json
import os
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
from training import checkpoints, precision
from training.arguments import sft_config
from training.distributed import environment_kept, shard, sharding_arguments, tell_plan, units, whole
from training.losses import masked_mean, mean_divergence
from training.recipe import RecipeError, Train

STEPS = 3


def start(function: Any, processes: int, *arguments: Any) -> None:
    port = free_port()
    calls = [(rank, processes, port, *arguments) for rank in range(processes)]
    assert run_all(function, calls, seconds=300) == [0] * processes


def train(
    rank: int, processes: int, port: int, directory: Path, train: dict[str, Any], changes: dict[str, Any]
) -> None:
    with rank_of(rank, processes, port):
        model = expanded(directory / str(rank), factor=0.3, method=changes.pop("method", "dlerp"))
        disturb(model)
        if changes.pop("compiled", False):
            precision.compile_layers(model, backend="eager")
        accumulation = train.get("accumulation", 1)
        run = trainer(model, directory, STEPS, train=train, parts=processes * accumulation, save_every=2, **changes)
        assert run.accelerator.num_processes == processes
        run.train()
        save_file(dict(model.state_dict()), directory / f"{rank}.safetensors")
        if rank == 0:
            (directory / "log.json").write_text(json.dumps(run.state.log_history))


CASES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"accumulation": 2, "checkpointing": True}, {"positions": "completion", "compiled": True}),
    ({"checkpointing": True}, {"method": "moe", "divergence": Divergence("cosine", -1.0)}),
]


@pytest.mark.parametrize(("section", "changes"), CASES, ids=["plain", "all options", "gate by divergence alone"])
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


def sharded(rank: int, processes: int, port: int, directory: Path, section: Train) -> None:
    with rank_of(rank, processes, port):
        mesh = init_device_mesh("cpu", (processes,))
        model, batches = prepared(directory / str(rank))
        assert whole(model) is model
        frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
        if section.precision == "bf16":  # as in a training: the base in its own type, what trains in fp32
            precision.trained_in_fp32(model.to(torch.bfloat16))
        if section.compile:
            precision.compile_layers(model, backend="aot_eager")
        if section.checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        shard(model, mesh, section)
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


@pytest.mark.parametrize(
    ("section", "tolerance"),
    [(Train(), 1e-5), (Train(compile=True, checkpointing=True), 1e-5), (Train(precision="bf16"), 5e-2)],
    ids=["plain", "compiled, checkpointed", "bf16"],
)
def test_a_sharded_model_trains_as_a_whole_one_does(section: Train, tolerance: float, tmp_path: Path) -> None:
    for rank in range(2):
        write_base(tmp_path / str(rank) / "base")
    start(sharded, 2, tmp_path, section)
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
    assert sharding_arguments(section)["fsdp_config"]["version"] == 2
    args = SimpleNamespace(fsdp_plugin_args={})
    tell_plan(args, expanded(tmp_path), section)
    plan = args.fsdp_plugin_args
    assert plan["transformer_cls_names_to_wrap"] == ["LlamaDecoderLayer"]
    assert plan["mixed_precision_policy"].param_dtype == torch.bfloat16
    assert plan["mixed_precision_policy"].reduce_dtype == torch.float32


def test_a_finished_training_is_loaded_without_being_sharded(tmp_path: Path) -> None:
    """It was killed between its last checkpoint and the end of its evaluation; accelerate wraps nothing any more."""
    trained = expanded(tmp_path)
    trainer(trained, tmp_path, STEPS, save_every=STEPS).fit()
    found = expanded(tmp_path)
    run = trainer(found, tmp_path, STEPS, save_every=STEPS)
    run.is_fsdp_enabled = True
    run.fit(checkpoints.newest(tmp_path / "run", 1))
    assert run.state.global_step == STEPS
    assert all(torch.equal(found.get_parameter(name), p) for name, p in trained.named_parameters())


def test_sharding_that_this_machine_cannot_do_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecipeError, match="train.sharding = 'fsdp': needs an accelerator"):
        sft_config(Train(sharding="fsdp"), 0, tmp_path)
    monkeypatch.setattr("training.distributed.find_spec", lambda name: None)
    with pytest.raises(RecipeError, match="train.sharding = 'zero2': needs DeepSpeed, which is not installed"):
        sft_config(Train(sharding="zero2"), 0, tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [("ACCELERATE_USE_DEEPSPEED", "true"), ("ACCELERATE_USE_FSDP", "true"), ("ACCELERATE_MIXED_PRECISION", "fp16")],
)
def test_what_the_launcher_would_change_is_refused(
    name: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(RecipeError, match=f"{name} = '{value}': .* say it there, and start with torchrun"):
        sft_config(Train(), 0, tmp_path)


def test_a_training_leaves_nothing_to_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    monkeypatch.delenv("ACCELERATE_USE_FSDP", raising=False)
    with environment_kept():  # accelerate does the following
        os.environ |= {"ACCELERATE_USE_FSDP": "true", "ACCELERATE_MIXED_PRECISION": "bf16"}
    assert "ACCELERATE_USE_FSDP" not in os.environ
    assert os.environ["ACCELERATE_MIXED_PRECISION"] == "no"


def test_an_update_that_cannot_be_shared_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(RecipeError, match="train.batch_size = 32: not a multiple of 3 processes times"):
        sft_config(Train(), 0, tmp_path)
