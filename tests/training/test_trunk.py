"""The trunk cache: a training that keeps what the frozen layers make of its texts ends as one that computes it anew."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from datasets import Dataset
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from cllm_model.divergence import Divergence
from cllm_model.expand import expand
from cllm_model.modeling import ControlLLMForCausalLM
from tests import tiny_models
from tests.forked import rank_of, run_all
from tests.serving import free_port
from tests.tiny_training import disturb, expanded, rows, tokenizer, write_base
from training import checkpoints, trunk
from training.optimise import Terms, optimise
from training.plan import plan
from training.recipe import ControlTrain, Recipe, RecipeError, Rehearsal
from training.rehearsal.pool import Pool, write
from training.trunk_cache import Documents, TrunkCache, Visits, documents_of

STEPS = 6
ROWS = 3  # updates: the data are gone through twice


def packed_rows() -> Dataset:
    """Rows of two documents each, of unequal lengths."""
    found = rows(2 * ROWS).to_list()
    pairs = zip(found[::2], found[1::2], strict=True)
    return Dataset.from_list(
        [
            {name: one[name] + other[name] for name in ("input_ids", "labels")}
            | {"seq_lengths": [len(one["input_ids"]), len(other["input_ids"])]}
            for one, other in pairs
        ]
    )


def pool_of(directory: Path, parts: int) -> Pool:
    """Eight sequences with the predictions of nobody in particular; an update rehearses four."""
    file = directory / "pool.safetensors"
    if not file.exists():
        generator = torch.Generator().manual_seed(2)
        sequences = [row["input_ids"] for row in rows(2, seed=7)]
        predictions = [torch.randn(len(tokens), len(tokenizer()), generator=generator) for tokens in sequences]
        write(file, sequences, predictions, 5)
    return Pool(file, 4, parts, 0, 0)


@dataclass
class Case:
    """A training: which sources it has, and which of them are kept."""

    kept: tuple[str, ...]
    data: Dataset = field(default_factory=lambda: rows(ROWS))
    train: dict[str, Any] = field(default_factory=dict)
    rehearsed: bool = False
    expansion: dict[str, Any] = field(default_factory=lambda: {"layers": [2, 3], "factor": 0.3})
    divergence: Divergence | None = Divergence("mse", 1.0)  # noqa: RUF009 - frozen

    def run(
        self, directory: Path, kept: bool, processes: int = 1, callbacks: tuple[TrainerCallback, ...] = ()
    ) -> tuple[list[dict[str, float]], dict[str, Tensor]]:
        """Train with the sources kept or not; returns the log and what was trained."""
        model = expanded(directory, **self.expansion)
        disturb(model)
        settings = {"steps": STEPS, "batch_size": 4, "warmup_steps": 0, "log_every": 1}
        section = ControlTrain.model_validate(settings | self.train)
        pool = pool_of(directory, section.accumulation * processes) if self.rehearsed else None
        sources = {"data": Documents(documents_of(self.data))}
        if pool is not None:
            sources["rehearsal"] = Documents(np.array(pool.tokens(i), np.int32) for i in range(len(pool)))
        cache = TrunkCache(directory / "trunk", {name: sources[name] for name in self.kept}) if kept else None
        terms = Terms(self.divergence, rehearsal=Rehearsal(gate=float(self.divergence is not None)), pool=pool)
        trained, state = optimise(
            model, tokenizer(), self.data, section, 0, directory / "checkpoints", terms, callbacks, cache
        )
        learned = {name: p.detach() for name, p in trained.named_parameters() if p.requires_grad}
        return [entry for entry in state.log_history if "loss" in entry], learned


CASES = {
    "padded": Case(("data",), train={"accumulation": 2}),
    "packed": Case(("data",), packed_rows(), {"batch_size": 2, "accumulation": 2}),
    "checkpointed": Case(("data",), train={"checkpointing": True}),
    "rehearsed": Case(("data", "rehearsal"), train={"accumulation": 2}, rehearsed=True),
    "rehearsed, pool alone": Case(("rehearsal",), rehearsed=True),
    "stack": Case(("data",), expansion={"layers": [2], "method": "lerp", "kind": "stack"}, divergence=None),
    "cosine": Case(
        ("data",), expansion={"layers": [1, 3], "method": "slerp", "factor": 0.3}, divergence=Divergence("cosine", -1.0)
    ),
}


def differences(
    one: tuple[list[dict[str, float]], dict[str, Tensor]], other: tuple[list[dict[str, float]], dict[str, Tensor]]
) -> tuple[float, float]:
    """The largest difference of any loss, or part of it, and of any weight."""
    parts = ("loss", "divergence", "kl", "gate", "grad_norm", "num_tokens")
    assert len(one[0]) == len(other[0]) == STEPS
    of_losses = [abs(a[name] - b[name]) for a, b in zip(one[0], other[0], strict=True) for name in parts if name in a]
    return max(of_losses), max((one[1][name] - other[1][name]).abs().max().item() for name in one[1])


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_kept_trunk_trains_as_a_computed_one(case: Case, tmp_path: Path) -> None:
    """In fp32, to rounding: a document is computed alone there, and beside others and padding here."""
    plain, kept = case.run(tmp_path, kept=False), case.run(tmp_path, kept=True)
    of_losses, of_weights = differences(plain, kept)
    assert of_losses < 5e-6
    assert of_weights < 5e-6


def test_one_wrong_row_is_told(tmp_path: Path) -> None:
    """The comparison above is not one that anything would pass."""
    case = CASES["rehearsed"]
    kept = case.run(tmp_path, kept=True)
    [file] = (tmp_path / "trunk").iterdir()
    states = np.fromfile(file, np.float32).reshape(-1, 16)
    states[:4] = states[4:8]
    states.tofile(file)
    of_losses, of_weights = differences(kept, case.run(tmp_path, kept=True))
    assert of_losses > 1e-4
    assert of_weights > 1e-4


def test_bf16_differs_no_more_than_bf16_does(tmp_path: Path) -> None:
    case = CASES["rehearsed"]
    exact = case.run(tmp_path, kept=False)
    case = Case(case.kept, case.data, case.train | {"precision": "bf16"}, case.rehearsed)
    plain, kept = case.run(tmp_path, kept=False), case.run(tmp_path, kept=True)
    assert differences(plain, kept)[0] < differences(exact, plain)[0]
    assert differences(exact, kept)[0] < 2 * differences(exact, plain)[0]


class Break(TrainerCallback):
    """Ends the training when a step is done."""

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step == 3:
            raise RuntimeError("broken off")


def test_a_broken_run_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    case = Case(("data", "rehearsal"), train={"accumulation": 2, "save_every": 2}, rehearsed=True)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for directory in (whole, broken):
        write_base(directory / "base")
    log, learned = case.run(whole, kept=True)
    with pytest.raises(RuntimeError, match="broken off"):
        case.run(broken, kept=True, callbacks=(Break(),))
    assert checkpoints.newest(broken / "checkpoints", 1) == broken / "checkpoints" / "checkpoint-2"
    [file] = (broken / "trunk").iterdir()
    written = file.stat().st_mtime_ns
    resumed, relearned = case.run(broken, kept=True)
    assert file.stat().st_mtime_ns == written
    assert resumed == log
    assert all(torch.equal(relearned[name], tensor) for name, tensor in learned.items())


def train_together(rank: int, processes: int, port: int, directory: Path) -> None:
    with rank_of(rank, processes, port):
        case = Case(("data", "rehearsal"), rehearsed=True)
        log, learned = case.run(directory / str(rank), kept=True, processes=processes)
        save_file(learned, directory / f"{rank}.safetensors")
        if rank == 0:
            (directory / "log.json").write_text(json.dumps(log))


def test_two_processes_keep_one_file_and_train_as_one_does(tmp_path: Path) -> None:
    for name, processes in (("one", 1), ("two", 2)):
        (tmp_path / name / "trunk").mkdir(parents=True)
        for rank in range(processes):
            write_base(tmp_path / name / str(rank) / "base")
            (tmp_path / name / str(rank) / "trunk").symlink_to(tmp_path / name / "trunk")
        port = free_port()
        calls = [(rank, processes, port, tmp_path / name) for rank in range(processes)]
        assert run_all(train_together, calls) == [0] * processes
    [one], [two] = (list((tmp_path / name / "trunk").iterdir()) for name in ("one", "two"))
    assert (one.name, one.read_bytes()) == (two.name, two.read_bytes())
    logs = [json.loads((tmp_path / name / "log.json").read_text()) for name in ("one", "two")]
    alone, first, second = (
        load_file(tmp_path / name) for name in ("one/0.safetensors", "two/0.safetensors", "two/1.safetensors")
    )
    assert all(torch.equal(first[name], tensor) for name, tensor in second.items())
    of_losses, of_weights = differences((logs[0], alone), (logs[1], first))
    assert of_losses < 1e-5
    assert of_weights < 1e-4


FAMILIES = {
    "llama": {},
    "mistral": {"sliding_window": 4},
    "qwen2": {},
    "qwen3": {
        "use_sliding_window": True,
        "sliding_window": 4,
        "layer_types": ["full_attention", "sliding_attention"] * 2,
    },
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["concat", "stack", "hybrid"])
def test_the_states_are_those_that_enter_the_lowest_expanded_layer(family: str, kind: str, tmp_path: Path) -> None:
    """The model itself says what they are; given them, it computes the same."""
    tiny_models.write_base(tmp_path / "base", family=family, **FAMILIES[family])
    expand(tmp_path / "base", tmp_path / "dual", [2, 3], "lerp", 0.0, kind)
    model = ControlLLMForCausalLM.from_pretrained(tmp_path / "dual")
    data = rows(1)
    states = TrunkCache(tmp_path / "trunk", {"data": Documents(documents_of(data))}).open(model, "fp32")["data"]
    longest = max(map(len, data["input_ids"]))
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in data["input_ids"]])
    lengths = torch.tensor([len(row) for row in data["input_ids"]])
    mask = (torch.arange(longest) < lengths[:, None]).long()
    given = {"attention_mask": mask, "use_cache": False, "output_hidden_states": True}
    found = states.of({"input_ids": ids, "attention_mask": mask})
    with torch.no_grad():
        whole = model.model(ids, **given)
        begun = model.model(ids, trunk_states=found, **given)
    expected = whole.hidden_states[model.model.first_layer]
    torch.testing.assert_close(found[mask.bool()], expected[mask.bool()], rtol=1e-4, atol=1e-5)
    assert not found[~mask.bool()].any()
    assert len(whole.hidden_states) - len(begun.hidden_states) == model.model.first_layer > 0
    for one, other in zip(begun.hidden_states[::-1], whole.hidden_states[::-1], strict=False):
        torch.testing.assert_close(one[mask.bool()], other[mask.bool()], rtol=1e-4, atol=1e-4)


def test_the_model_takes_no_states_where_keys_and_values_are_wanted(tmp_path: Path) -> None:
    model = expanded(tmp_path, [2, 3])
    with pytest.raises(ValueError, match="trunk_states: .* use_cache must be False"):
        model.eval()(torch.tensor([[5, 6]]), trunk_states=torch.zeros(1, 2, 16))


def test_another_base_other_data_and_leftovers_are_never_taken(tmp_path: Path) -> None:
    model, data = expanded(tmp_path, [2, 3]), rows(1)
    ids = torch.tensor(data["input_ids"][:1])
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    cache = TrunkCache(tmp_path / "trunk", {"data": Documents(documents_of(data))})
    first = cache.open(model, "fp32")["data"].of(batch)
    [old] = (tmp_path / "trunk").iterdir()
    whole = old.read_bytes()
    (tmp_path / "trunk" / f".{old.name}.part").write_bytes(b"half")
    old.write_bytes(whole[:-1])
    assert torch.equal(cache.open(model, "fp32")["data"].of(batch), first)
    assert old.read_bytes() == whole
    model.model.layers[3].expanded_layer.mlp.up_proj.weight.data += 1  # above the trunk
    assert torch.equal(cache.open(model, "fp32")["data"].of(batch), first)
    model.model.layers[1].mlp.up_proj.weight.data += 1
    changed = cache.open(model, "fp32")["data"].of(batch)
    expected = model.model(**batch, use_cache=False, output_hidden_states=True).hidden_states[2]
    torch.testing.assert_close(changed, expected.detach(), rtol=1e-4, atol=1e-5)
    assert (changed - first).abs().max() > 0.1
    [new] = (tmp_path / "trunk").iterdir()
    assert new.name != old.name
    with pytest.raises(KeyError):
        cache.open(model, "fp32")["data"].of({name: tensor[:, :-1] for name, tensor in batch.items()})


def test_visits_count_each_document_once() -> None:
    apart = rows(2 * ROWS).to_list()
    documents = Documents(documents_of(packed_rows()))
    assert len(documents.distinct) == len(apart)
    assert documents.visits == (sum(len(row["input_ids"]) for row in apart), 1.0)
    first, second = (len(row["input_ids"]) for row in apart[:2])
    repeated = Documents(documents_of(rows(2 * ROWS).select([0, 1, 1, 1])))
    assert repeated.visits == (first + second, (first + 3 * second) / (first + second))
    assert Visits.of([(100, 3.0), (400, 0.25)]) == (200, 2.0)


def test_the_share_of_the_trunk(tmp_path: Path) -> None:
    """Two of four layers: forward alone; the others frozen: forward and backward; two copies and factors: the whole."""
    model = expanded(tmp_path, [2, 3], "lerp")
    layer = 4 * 16 * 16 + 3 * 16 * 32 + 2 * 16
    head = 16 * len(tokenizer())
    assert trunk.trunk_share(model) == pytest.approx(
        2 * layer / (2 * layer + 2 * (2 * layer + head) + 3 * 2 * (layer + 1))
    )


@pytest.mark.parametrize(
    ("mode", "times", "size", "cached", "reason"),
    [
        ("auto", 4.0, 25, True, "visited 4 times, the cache spares 30.0% of the work"),
        ("auto", 4.0, 26, False, "at most 25% of it may be taken"),
        ("auto", 1.1, 1, False, "spares 3.6% of the work .*; worth it from 5%"),
        ("auto", 0.5, 1, False, "spares -40.0% of the work"),
        ("always", 1.0, 100, True, "the recipe says always; .* spares 0.0%"),
    ],
)
def test_when_the_cache_pays(mode: Any, times: float, size: int, cached: bool, reason: str) -> None:
    """Of a source whose tokens cost the trunk .4 of the work, where 100 bytes are free."""
    choice = trunk.decide(mode, 0.4, times, size, 100)
    assert choice.cached == cached
    assert re.search(reason, choice.reason)


def planned(tree: dict[str, Any], **changes: Any) -> dict[str, str]:
    """What `--dry-run` prints of the cache."""
    recipe = Recipe.model_validate(tree | {"train": tree["train"] | changes})
    _, found = yaml.safe_load_all("\n".join(plan(recipe)))
    return found["trunk_cache"]


def test_the_choice_is_planned(tree: dict[str, Any], tmp_path: Path) -> None:
    tree["output"] = str(tmp_path / "out")
    found = planned(tree)
    # Every example is drawn anew; of 8 sequences 4 are rehearsed in each of 4 updates.
    assert re.match(r"not cached: a token is visited 1\.?\d* times, .* worth it from 5%", found["data"])
    assert re.match(r"cached: a token is visited 2 times, the cache spares 6\.\d% of the work", found["rehearsal"])
    assert planned(tree, trunk_cache="never") == dict.fromkeys(found, "not cached: the recipe says never")
    always = planned(tree, trunk_cache="always")
    assert all(reason.startswith("cached: the recipe says always; a token is visited") for reason in always.values())


def test_always_does_not_fill_the_disk(tree: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both sources together are too large for it."""
    tree["output"] = str(tmp_path / "out")
    sizes = [float(re.search(r"takes (\S+) GiB", reason)[1]) for reason in planned(tree, trunk_cache="always").values()]
    monkeypatch.setattr(trunk, "_free", lambda directory: int(1.01 * max(sizes) * trunk.GIB))
    with pytest.raises(RecipeError, match="'always': data and rehearsal would take .* GiB of free disk"):
        planned(tree, trunk_cache="always")


def test_where_nothing_can_be_kept_auto_says_why_and_always_is_refused(tree: dict[str, Any], tmp_path: Path) -> None:
    base = tiny_models.write_base(tmp_path / "base", num_hidden_layers=2, attention_dropout=0.1)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"expansion": {"at": [0], "method": "dlerp"}}, "layer 0 is expanded, no frozen layer is below it"),
        ({"divergence": {"positions": "published"}}, "'published' counts padding, whose states are not kept"),
        ({"base": {"path": str(base)}}, "attention_dropout is 0.1, so its layers make something else of a text"),
    ]
    for changes, reason in cases:
        changed = tree | changes | {"output": str(tmp_path / "out")}
        for source in planned(changed).values():
            assert source.startswith("not cached: ") and reason in source
        with pytest.raises(RecipeError, match=rf"train.trunk_cache = 'always': .*{reason}.*; use 'auto' or 'never'"):
            planned(changed, trunk_cache="always")
    sharded = Recipe.model_validate(tree | {"train": tree["train"] | {"sharding": "fsdp", "trunk_cache": "always"}})
    with pytest.raises(RecipeError, match="train.sharding is 'fsdp', and the cache is for models that are not sharded"):
        trunk.check(sharded)
    with pytest.raises(ValueError, match="trunk_cache"):
        Recipe.model_validate(tree | {"baselines": {"full_fine_tuning": tree["train"] | {"trunk_cache": "always"}}})


def test_a_resumed_run_keeps_to_what_was_chosen(tree: dict[str, Any], tmp_path: Path) -> None:
    recipe = Recipe.model_validate(tree)
    model = expanded(tmp_path, [2, 3])
    often, once = Visits(100, 10.0), Visits(100, 1.0)
    first = trunk.settle(model, recipe, {"data": often, "rehearsal": once}, tmp_path)
    assert [choice.cached for choice in first.values()] == [True, False]
    assert trunk.settle(model, recipe, {"data": once, "rehearsal": often}, tmp_path) == first
