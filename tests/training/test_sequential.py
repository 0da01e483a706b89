"""Sequential domains: a controlled checkpoint goes on learning, or is merged back and expanded anew."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from cllm_model import checkpoint
from cllm_model.merge import merge
from cllm_model.modeling import ControlLLMForCausalLM
from tests.tiny_models import write_base, write_dual
from training import sequential
from training.recipe import Recipe, RecipeError
from training.rehearsal import Pool, build


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("sequential") / "base")


@pytest.fixture(scope="module")
def first(base: Path) -> Path:
    """A checkpoint that a first training left."""
    return write_dual(base, base.parent / "first", "dlerp", layers=2)


def recipe(path: Path, mode: str | None, **sections: Any) -> Recipe:
    start = {"path": str(path)} | ({"sequential": mode} if mode else {})
    return Recipe.model_validate({"base": start, "originals": ["compare"], "new": "capitals", **sections})


def logits(model: Any, **forward: Any) -> torch.Tensor:
    ids = torch.randint(3, 90, (2, 12), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return model.eval()(ids, **forward).logits


def test_continuing_trains_the_checkpoints_own_expansion(base: Path, first: Path, tmp_path: Path) -> None:
    """It starts as what the checkpoint computes, trains what that expansion added, and its base stays the first one."""
    settled = sequential.resolved(recipe(first, "continue", divergence={"loss": "none"}))
    assert (settled.expansion.kind, settled.expansion.at, settled.expansion.method) == ("concat", [1, 3], "dlerp")
    directory, method = sequential.start(settled, tmp_path)
    model = method.prepare(directory, tmp_path)
    assert torch.equal(logits(model), logits(AutoModelForCausalLM.from_pretrained(first)))
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {n for n, _ in model.named_parameters() if ".expanded_layer." in n or ".interpolator." in n}
    for name, parameter in model.named_parameters():
        if name in trained:
            parameter.data += 0.1
    assert torch.equal(logits(model, control_scale=0.0), logits(AutoModelForCausalLM.from_pretrained(base)))


def test_merging_starts_from_the_folded_weights_with_fresh_branches(first: Path, tmp_path: Path) -> None:
    settled = sequential.resolved(recipe(first, "merge", expansion={"layers": 1, "method": "lerp"}))
    directory, method = sequential.start(settled, tmp_path)
    model = method.prepare(directory, tmp_path)
    merge(first, tmp_path / "reference")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "reference")
    assert isinstance(model, ControlLLMForCausalLM)
    assert model.config.dual.expanded_layers == (3,)
    torch.testing.assert_close(logits(model), logits(plain), atol=1e-5, rtol=0)
    torch.testing.assert_close(logits(model, control_scale=0.0), logits(plain), atol=0, rtol=0)


def test_a_plain_base_is_expanded_as_ever(base: Path, tmp_path: Path) -> None:
    settled = sequential.resolved(recipe(base, None))
    directory, _ = sequential.start(settled, tmp_path)
    assert directory == base


def test_the_checkpoint_rehearses_as_it_was(base: Path, first: Path, tmp_path: Path) -> None:
    """The teacher of a second training is the controlled model, not the base inside it."""
    settings = recipe(first, "continue", rehearsal={"sources": ["random"], "sequences": 4, "batch_size": 4, "gate": 0})
    assert settings.rehearsal is not None
    teacher = AutoModelForCausalLM.from_pretrained(first)
    tokenizer = AutoTokenizer.from_pretrained(first)
    tokenizer.chat_template = None
    build(teacher, tokenizer, settings.rehearsal.model_copy(update={"max_tokens": 6}), 0, tmp_path / "pool")
    batch = Pool(tmp_path / "pool", 4, 1, 0, 0).batch(0, 0)
    mask = batch["attention_mask"]

    def most_probable(model: Any) -> torch.Tensor:
        with torch.inference_mode():
            return model.eval()(batch["input_ids"], attention_mask=mask).logits.argmax(dim=-1)[mask.bool()]

    told = batch["top_ids"][..., 0][mask.bool()]
    assert torch.equal(told, most_probable(teacher))
    assert not torch.equal(told, most_probable(AutoModelForCausalLM.from_pretrained(base)))


@pytest.mark.parametrize(
    ("kind", "mode", "sections", "named"),
    [
        ("base", "continue", {}, "is a plain checkpoint"),
        ("base", "merge", {}, "is a plain checkpoint"),
        ("first", None, {}, "give `continue` or `merge`"),
        ("first", "continue", {"expansion": {"layers": 2}}, "expansion: base.sequential 'continue'"),
        ("first", "continue", {"rehearsal": {"gate": 1.0}}, "rehearsal.gate = 1"),
    ],
)
def test_what_does_not_fit_the_checkpoint_is_refused(
    base: Path, first: Path, kind: str, mode: str | None, sections: dict[str, Any], named: str
) -> None:
    with pytest.raises(RecipeError) as refused:
        sequential.resolved(recipe({"base": base, "first": first}[kind], mode, **sections))
    assert named in str(refused.value)


def test_a_loss_that_the_checkpoints_expansion_does_not_have_is_refused(base: Path, tmp_path: Path) -> None:
    stacked = write_dual(base, tmp_path / "stacked", "lerp", layers=2, kind="stack")
    with pytest.raises(RecipeError, match="expansion.kind 'stack' has none"):
        sequential.resolved(recipe(stacked, "continue", divergence={"loss": "mse"}))


def test_the_history_follows_every_earlier_skill(first: Path) -> None:
    """From the report beside a checkpoint, if it is of this checkpoint: its own scores behind those of earlier runs."""
    assert sequential.history(first) == []
    earlier = {"name": "one", "checkpoint": "0" * 12, "new": "add", "scores": {"compare": 0.9, "add": 0.8}}
    report = {
        "checkpoint": checkpoint.checkpoint_hash(first),
        "recipe": {"name": "two"},
        "history": [earlier],
        "skills": [
            {"name": "add", "kind": "original", "scores": {"base": 0.8, "control": 0.7}},
            {"name": "count", "kind": "new", "scores": {"base": 0.0, "control": 0.6}},
        ],
    }
    (first.parent / "report.json").write_text(json.dumps(report))
    found = sequential.history(first)
    assert found[0] == earlier
    assert (found[1]["name"], found[1]["new"]) == ("two", "count")
    assert found[1]["scores"] == {"add": 0.7, "count": 0.6}
    (first.parent / "report.json").write_text(json.dumps(report | {"checkpoint": "1" * 12}))
    assert sequential.history(first) == []


def test_two_domains_through_the_recipe(tree: dict[str, Any], tmp_path: Path) -> None:
    """A run, a second one that continues it, and a third that merges it: each report follows the first one's skill.

    Baselines stand in the reports under their names, with what was searched.
    """
    from training.report import read
    from training.run import run

    first = Recipe.model_validate(tree | {"output": str(tmp_path / "first"), "baselines": {}})
    before = read(run(first))
    scores = {skill.name: skill.scores.control for skill in before.skills}
    later = {name: tree[name] for name in ("evaluation", "train")} | {
        "originals": ["compare", "letters", "capitals"],
        "new": "add",
    }
    continued = {
        "base": {"path": str(tmp_path / "first" / "model"), "sequential": "continue"},
        "rehearsal": tree["rehearsal"] | {"gate": 0.0},
        "output": str(tmp_path / "continued"),
    }
    after = read(run(Recipe.model_validate(later | continued)))
    [earlier] = after.history
    assert (earlier["name"], earlier["new"], earlier["scores"]) == ("mini", "capitals", scores)
    assert earlier["checkpoint"] == before.checkpoint
    assert after.training.trainable_parameters == before.training.trainable_parameters
    # What it starts from, the controlled model as it was, is its "base": asked the same, it scores the same.
    assert {s.name: s.scores.base for s in after.skills if s.name != "add"} == scores
    merged = {
        "base": {"path": str(tmp_path / "first" / "model"), "sequential": "merge"},
        "expansion": {"layers": 2, "method": "lerp"},
        "divergence": {"loss": "none"},
        "baselines": {
            "others": {
                "lora": {
                    "method": "lora",
                    "learning_rates": [1e-4, 1e-3],
                    "train": {"steps": 2, "batch_size": 8, "check_every": 2, "check_prompts": 4},
                }
            }
        },
        "output": str(tmp_path / "merged"),
    }
    again = read(run(Recipe.model_validate(later | merged)))
    assert [one["new"] for one in again.history] == ["capitals"]
    assert all(set(skill.baselines) == {"lora"} for skill in again.skills)
    assert [one["learning_rate"] for one in again.training.baselines["lora"]["search"]] == [1e-4, 1e-3]
