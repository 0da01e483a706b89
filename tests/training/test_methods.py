"""Every way to learn: what it starts as, what it trains, what is left of it, and how a baseline is chosen."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from pydantic import ValidationError
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, PreTrainedModel

from cllm_model.modeling import ControlLLMForCausalLM
from tests.tiny_models import write_base
from training import baselines
from training.methods import METHODS, Control, Full, Half, LoRA, Method, Partial, lines, trainable_parameters, wise_ft
from training.optimise import Terms, optimise
from training.recipe import Baseline, BaselineTrain, Expansion, Recipe, Rehearsal, Train
from training.rehearsal import Pool
from training.rehearsal.pool import write
from training.run import prepare

STACK = Control(Expansion(kind="stack", layers=2))
CASES: dict[str, tuple[Method, type[PreTrainedModel]]] = {
    "control": (Control(Expansion(layers=2, method="dlerp")), ControlLLMForCausalLM),
    "stack": (STACK, ControlLLMForCausalLM),
    "full": (Full(), LlamaForCausalLM),
    "partial": (Partial(2), LlamaForCausalLM),
    "lora": (LoRA(rank=2, alpha=4), LlamaForCausalLM),
    "hft": (Half(), LlamaForCausalLM),
}
LAYERS = 4


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("methods") / "base")


@pytest.fixture(scope="module")
def pool(base: Path) -> Pool:
    """Eight sequences with the base's own predictions."""
    model = AutoModelForCausalLM.from_pretrained(base).eval()
    ids = torch.randint(3, 90, (8, 9), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        write(base / "pool", ids.tolist(), model(ids).logits, 16)
    return Pool(base / "pool", 4, 1, 0, seed=0)


def rows(count: int) -> Dataset:
    ids = torch.randint(3, 90, (count, 10), generator=torch.Generator().manual_seed(2)).tolist()
    return Dataset.from_list([{"input_ids": row, "labels": row} for row in ids])


def logits(model: Any) -> torch.Tensor:
    ids = torch.randint(3, 90, (2, 12), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return model.eval()(input_ids=ids).logits


def test_every_registered_method_is_tested_here() -> None:
    assert {type(method) for method, _ in CASES.values()} == set(METHODS.values()) - {METHODS["continued"]}
    assert all(METHODS[name].name == name for name in METHODS)


@pytest.mark.parametrize("name", CASES)
def test_it_starts_as_the_base_trains_its_own_and_leaves_a_whole_model(
    name: str, base: Path, pool: Pool, tmp_path: Path
) -> None:
    """Two updates with self-rehearsal: all that trains moves, nothing else does, and what is saved loads as it was."""
    method, kind = CASES[name]
    model = method.prepare(base, tmp_path)
    torch.testing.assert_close(logits(model), logits(AutoModelForCausalLM.from_pretrained(base)), atol=1e-5, rtol=0)
    before = {n: tensor.clone() for n, tensor in model.named_parameters()}
    chosen = {n for n, tensor in model.named_parameters() if tensor.requires_grad}
    assert trainable_parameters(model) == sum(before[n].numel() for n in chosen)
    train = Train(steps=2, batch_size=4, warmup_steps=0, learning_rate=1e-2, schedule="constant", log_every=1)
    settings = Rehearsal(sequences=8, batch_size=4)
    tokenizer = AutoTokenizer.from_pretrained(base)
    terms = Terms(rehearsal=settings, pool=pool)
    model, state = optimise(model, tokenizer, rows(8), train, 0, tmp_path / "run", terms)
    assert "kl" in state.log_history[-2]
    assert {n for n, tensor in model.named_parameters() if not torch.equal(tensor, before[n])} == chosen
    trained = logits(model)
    finished = method.finish(model)
    assert type(finished) is kind
    # Folded adapters round differently; the logits are of the order of 10.
    torch.testing.assert_close(logits(finished), trained, atol=1e-3, rtol=0)
    finished.save_pretrained(tmp_path / "finished")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "finished")
    torch.testing.assert_close(logits(loaded), logits(finished), atol=1e-5, rtol=0)


def test_partial_trains_the_layers_that_an_expansion_would_copy(base: Path, tmp_path: Path) -> None:
    for layers, expected in ((2, {1, 3}), ((0, 2), {0, 2})):
        model = Partial(layers).prepare(base, tmp_path)
        trained = {n for n, tensor in model.named_parameters() if tensor.requires_grad}
        assert trained == {n for n, _ in model.named_parameters() if n.startswith("model.layers.")
                           and int(n.split(".")[2]) in expected}  # fmt: skip
    with pytest.raises(ValueError, match="layers"):
        Partial(9).prepare(base, tmp_path)


def test_half_of_each_category_trains_over_two_layers(base: Path, tmp_path: Path) -> None:
    """Of two neighbouring layers: half of the attention's matrices, of the MLP's and of the norms."""
    model = Half().prepare(base, tmp_path)
    for first in range(0, LAYERS, 2):
        for category, count in (("self_attn", 4), ("mlp", 3), ("norm", 2)):
            found = [
                tensor.requires_grad
                for name, tensor in model.named_parameters()
                if any(name.startswith(f"model.layers.{i}.") for i in (first, first + 1)) and category in name
            ]
            assert len(found) == 2 * count
            assert sum(found) == count
    assert not any(tensor.requires_grad for name, tensor in model.named_parameters() if ".layers." not in name)


@pytest.fixture
def tuned(base: Path) -> PreTrainedModel:
    model = AutoModelForCausalLM.from_pretrained(base)
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def test_wise_ft_averages_every_weight(base: Path, tuned: PreTrainedModel) -> None:
    start = AutoModelForCausalLM.from_pretrained(base)
    found = wise_ft(start, tuned, 0.3).state_dict()
    for name, tensor in start.state_dict().items():
        torch.testing.assert_close(found[name], 0.7 * tensor + 0.3 * tuned.state_dict()[name])
    assert torch.equal(logits(wise_ft(start, tuned, 0.0)), logits(start))
    torch.testing.assert_close(logits(wise_ft(start, tuned, 1.0)), logits(tuned))


def test_lines_keeps_more_of_higher_layers(base: Path, tuned: PreTrainedModel) -> None:
    """lambda(l) = alpha + beta * l / (L - 1) with alpha + beta = 1, for layers counted from 0."""
    start = AutoModelForCausalLM.from_pretrained(base)
    found = lines(start, tuned, 0.4).state_dict()
    shares = {"model.embed_tokens.weight": 0.4, "model.norm.weight": 1.0, "lm_head.weight": 1.0} | {
        f"model.layers.{i}.mlp.up_proj.weight": share for i, share in enumerate((0.4, 0.6, 0.8, 1.0))
    }
    for name, share in shares.items():
        expected = start.state_dict()[name] + share * (tuned.state_dict()[name] - start.state_dict()[name])
        torch.testing.assert_close(found[name], expected)


def lesson_of(base: Path, new: Callable[[Any], float], originals: Callable[[Any], float], **changes: Any) -> Any:
    """A lesson on random rows whose scores are measured on the model by the test's own functions."""
    return baselines.Lesson(
        base=base,
        tokenizer=AutoTokenizer.from_pretrained(base),
        expansion=Expansion(layers=2),
        rows=changes.get("rows", lambda train, replay: rows(train.steps * train.batch_size)),
        terms=changes.get("terms", Terms()),
        new=new,
        originals=originals,
        target=0.5,
        seed=0,
    )


def distance(base: Path) -> Callable[[Any], float]:
    """How far a model's predictions are from the base's."""
    expected = logits(AutoModelForCausalLM.from_pretrained(base))
    return lambda model: (logits(model) - expected).abs().mean().item()


TRAIN = {"steps": 3, "batch_size": 4, "warmup_steps": 0, "schedule": "constant", "check_every": 1}


def test_of_the_rates_that_reach_the_target_the_one_that_keeps_most_is_chosen(base: Path, tmp_path: Path) -> None:
    """The lowest rate does not learn, the highest strays furthest from the base; the one between is right."""
    away = distance(base)
    section = Baseline(method="partial", train=BaselineTrain(**TRAIN), learning_rates=[1e-9, 1e-2, 1e-1])
    lesson = lesson_of(base, lambda model: float(away(model) > 0.05), lambda model: -away(model))
    model, facts = baselines.fit(section, lesson, tmp_path)
    assert facts["learning_rate"] == 1e-2
    assert [one["new"] for one in facts["search"]] == [0.0, 1.0, 1.0]
    assert facts["reached"] is True
    assert facts["steps"] < 3, "it stops where it reaches the target"
    assert facts["search"][1]["originals"] == pytest.approx(-away(model))


def test_a_baseline_may_be_averaged_with_its_base(base: Path, tmp_path: Path) -> None:
    """Validation takes the smallest share that still reaches the target: nearer to the base it keeps more."""
    away = distance(base)
    train = BaselineTrain(**TRAIN, learning_rate=3e-2)
    whole, _ = baselines.fit(Baseline(method="full", train=train), lesson_of(base, lambda m: 0.0, away), tmp_path / "a")
    needed = 0.6 * away(whole)
    section = Baseline(method="full", train=train, average="wise_ft", shares=[0.1, 0.9, 1.0])
    lesson = lesson_of(base, lambda model: float(away(model) > needed), lambda model: -away(model))
    model, facts = baselines.fit(section, lesson, tmp_path / "b")
    assert facts["average"]["share"] == 0.9
    assert facts["average"]["search"][0]["new"] == 0.0
    assert needed < away(model) < away(whole)


def test_rehearsal_and_replay_reach_a_baseline_that_asks_for_them(base: Path, pool: Pool, tmp_path: Path) -> None:
    asked: list[float] = []

    def drawn(train: BaselineTrain, replay: float) -> Dataset:
        asked.append(replay)
        return rows(train.steps * train.batch_size)

    away = distance(base)
    terms = Terms(rehearsal=Rehearsal(sequences=8, batch_size=4, kl=100.0), pool=pool)
    lesson = lesson_of(base, lambda model: 0.0, lambda model: -away(model), rows=drawn, terms=terms)
    found = {}
    for rehearse in (False, True):
        section = Baseline(
            method="stack",
            train=BaselineTrain(**TRAIN | {"steps": 8}, learning_rate=1e-2),
            rehearse=rehearse,
            replay=0.25 * rehearse,
        )
        _, facts = baselines.fit(section, lesson, tmp_path / str(rehearse))
        found[rehearse] = facts["search"][0]["originals"]
    assert asked == [0.0, 0.25]
    assert found[True] > found[False] + 0.01, "a strong pull towards the base keeps it nearer"


@pytest.mark.parametrize(
    ("section", "named"),
    [
        ({"method": "full", "at": [1]}, "`at` has no effect with method 'full'"),
        ({"method": "hft", "rank": 4}, "`rank` has no effect with method 'hft'"),
        ({"method": "full", "shares": [0.5]}, "`shares` has no effect"),
        ({"method": "stack", "average": "lines"}, "`average` needs weights"),
        ({"method": "full", "learning_rates": [1e-3], "train": {"learning_rate": 1e-3}}, "give one of"),
        ({"method": "adapter"}, "full"),
    ],
)
def test_a_baseline_that_makes_no_sense_is_refused(section: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        Baseline.model_validate(section)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"rehearsal": None}, "others.partial.rehearse: there is no `rehearsal`"),
        ({"train": {"accumulation": 4}}, r"others.partial.train.accumulation \(1\) must be train.accumulation \(4\)"),
        ({"baselines": {"others": {"control": {"method": "full"}}}}, "`others` names"),
    ],
)
def test_a_recipe_whose_baselines_do_not_fit_it_is_refused(changes: dict[str, Any], named: str) -> None:
    tree = {
        "base": {"path": "x"},
        "originals": ["add"],
        "new": "tavi",
        "rehearsal": {"sequences": 64},
        "baselines": {"others": {"partial": {"method": "partial", "rehearse": True}}},
    }
    assert Recipe.model_validate(tree).baselines.all["partial"].rehearse
    with pytest.raises(ValidationError, match=named):
        Recipe.model_validate(tree | changes)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"rehearsal": {"sources": ["file"], "file": "prompts.jsonl"}}, "prompts.jsonl"),
        ({"baselines": {"others": {"partial": {"method": "partial", "at": [9]}}}}, "baselines.others.partial: layers"),
    ],
)
def test_what_a_recipe_refers_to_is_looked_at_before_training(
    changes: dict[str, Any], named: str, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tree = {"base": {"path": str(base)}, "originals": ["add"], "new": "tavi", "output": "out"}
    prepare(Recipe.model_validate(tree))
    with pytest.raises(ValueError, match=named):
        prepare(Recipe.model_validate(tree | changes))
