"""`--dry-run`: what it prints is what would be trained, for models that nobody could train here too."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import LlamaConfig

from cllm_model.divergence import Divergence
from tests.tiny_models import write_base as write_tiny
from tests.tiny_training import disturb, expanded, trainer, write_base
from training import memory
from training.plan import described, plan, shown_rows
from training.recipe import Recipe, RecipeError, Train, load

RECIPES = Path(__file__).parents[2] / "training" / "recipes"


@pytest.fixture
def big(tmp_path: Path) -> Path:
    """A base of the shape of Llama 3 8B: config and tokenizer, no weights."""
    tokenizer = write_tiny(tmp_path / "tokenizer", num_hidden_layers=1)
    config = LlamaConfig(
        vocab_size=128_256,
        hidden_size=4096,
        intermediate_size=14_336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=8192,
    )
    config.save_pretrained(tmp_path / "base")
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (tokenizer / file).exists():
            (tmp_path / "base" / file).write_bytes((tokenizer / file).read_bytes())
    return tmp_path / "base"


def planned(recipe: Recipe) -> dict[str, Any]:
    shown, found = yaml.safe_load_all("\n".join(plan(recipe)))
    assert Recipe.model_validate(shown) == recipe
    return found


@pytest.mark.parametrize("name", ["cpt-8b", "sft-8b"])
def test_the_recipes_for_8b_are_planned_for_eight_gpus(
    name: str, big: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = {"text": "some text " * 10}
    chat = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    (tmp_path / "data.jsonl").write_text(json.dumps(text if name == "cpt-8b" else chat) + "\n")
    monkeypatch.setenv("WORLD_SIZE", "8")
    sources = f"data.sources=[{{path: {tmp_path / 'data.jsonl'}}}]"
    recipe = load(RECIPES / f"{name}.yaml", [f"base.path={big}", sources, "data.max_length=64"])
    found = planned(recipe)
    layer = 218_112_000  # 2 * 4096² + 2 * 4096 * 1024 + 3 * 4096 * 14336 + 2 * 4096
    gate = 2 * 4096 + 1
    assert found["parameters"]["trainable"] == 8 * (layer + gate)
    assert found["parameters"]["frozen"] == 8_030_261_248  # Llama 3 8B
    assert found["steps"]["processes"] == 8
    assert found["steps"]["examples_per_micro_batch"] * found["steps"]["micro_batches_per_process"] * 8 == (
        recipe.train.batch_size
    )
    sizes = found["memory_gib_per_device"]
    share = (4 * 8 * (layer + gate) + 2 * 8_030_261_248) / 8 + 2 * layer
    assert sizes["weights"] == pytest.approx(share / 2**30, abs=0.01)
    assert sizes["optimizer"] == pytest.approx(8 * 8 * (layer + gate) / 8 / 2**30, abs=0.01)
    assert "no weights" in found["base"]
    if not torch.accelerator.is_available():
        assert found["machine"].startswith("it can be planned here, not trained: train.sharding = 'fsdp': needs an acc")


def test_what_a_gpu_of_80_gib_holds(big: Path) -> None:
    """The micro-batches of the recipes, with rows of full length."""
    for name in ("cpt-8b", "sft-8b"):
        recipe = load(RECIPES / f"{name}.yaml", [f"base.path={big}"])
        rows = recipe.train.batch_size // recipe.train.accumulation // 8
        assert recipe.data is not None and recipe.data.max_length is not None
        found = memory.estimate(described(recipe), recipe, rows * recipe.data.max_length, 8)
        assert 10 < found.total / memory.GIB < 70


def test_zero_2_shares_gradients_and_optimizer_state(big: Path) -> None:
    fp32 = ["train.precision=fp32", "train.attention=sdpa"]
    none, zero2 = (
        memory.estimate(described(recipe), recipe, 64, 8)
        for recipe in (
            load(RECIPES / "cpt-8b.yaml", [f"base.path={big}", f"train.sharding={sharding}", *fp32])
            for sharding in ("none", "zero2")
        )
    )
    assert zero2.weights == none.weights and zero2.activations == none.activations
    assert zero2.gradients == none.gradients / 8
    assert zero2.optimizer == 1.5 * none.optimizer / 8  # DeepSpeed optimises a copy of its share


def kept_bytes(directory: Path, train: dict[str, Any]) -> tuple[float, float]:
    """What the backward pass of a training step really keeps of each token, and the estimate."""
    write_base(directory / "base", hidden_size=64, intermediate_size=172)
    model = expanded(directory, method="lerp")
    disturb(model)
    run = trainer(model, directory, rehearse=False, train=train, divergence=Divergence("mse", 1.0))
    run.create_optimizer()
    model.train()
    batch = run._prepare_inputs(next(iter(run.get_train_dataloader())))
    weights = {p.data_ptr() for p in model.parameters()}
    seen: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    if train.get("checkpointing"):
        model.gradient_checkpointing_enable({"use_reentrant": False})
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        held = model.model(batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False)
        assert run.divergence is not None
        losses = [run.divergence.per_token(b) for b in model.model.branches.values()]
    tokens = batch["input_ids"].numel()
    del held, losses
    return sum(seen.values()) / tokens, memory.kept(model, Train.model_validate({"checkpointing": False} | train))


def test_the_estimate_of_activations_is_near_what_is_kept(tmp_path: Path) -> None:
    measured, estimated = kept_bytes(tmp_path, {})
    assert estimated == pytest.approx(measured, rel=0.25)


def test_rows_are_shown_with_what_is_learned(tree: dict[str, Any]) -> None:
    recipe = Recipe.model_validate(tree)
    first, second = shown_rows(recipe, 2)
    assert "⟦" in first and "⟧" in second


def test_a_dry_run_needs_what_the_recipe_names(big: Path, tmp_path: Path) -> None:
    recipe = load(RECIPES / "cpt-8b.yaml", [f"base.path={tmp_path / 'missing'}", "train.sharding=none"])
    with pytest.raises(ValueError, match="missing: no such directory"):
        list(plan(recipe))
    with pytest.raises(RecipeError, match="expansion.layers: 7 does not divide"):
        list(plan(load(RECIPES / "cpt-8b.yaml", [f"base.path={big}", "train.sharding=none", "expansion.layers=7"])))
