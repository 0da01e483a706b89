"""Recipes: what is refused, and what the message says."""

from pathlib import Path

import pytest

from training.recipe import RecipeError, load

SHIPPED = Path(__file__).parents[2] / "training" / "recipes" / "demo.yaml"


def refusal(path: Path, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load(path, overrides)
    return str(caught.value)


def test_the_shipped_recipe_loads() -> None:
    assert load(SHIPPED).new == "tavi"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.step=5", ("train.step = 5", "did you mean 'steps'", "learning_rate")),
        ("colour=red", ("colour = 'red'", "Choices: base, baselines")),
        ("base.make.train=1", ("base.make.train = 1", "stages")),
        ("expansion.method=mean", ("expansion.method = 'mean'", "lerp, dlerp")),
        ("divergence.loss=l1", ("divergence.loss = 'l1'", "'cosine', 'mse' or 'none'")),
        ("divergence.weight=-2", ("-2", "-1 for the layer's own")),
        ("train.learning_rate=0", ("train.learning_rate = 0", "greater than 0")),
        ("train.accumulation=3", ("accumulation", "batch_size")),
        ("base.make.stages=[{train: {lr: 1}}]", ("base.make.stages.0.train.lr = 1", "warmup_steps")),
        ("base.make.stages=[{weights: {add: 1}}]", ("stages.0.weights", "'add'", "originals")),
        ("base.make.stages=[]", ("base.make.stages", "at least 1 item")),
        ("new=swim", ("new = 'swim'", "'tavi'")),
        ("new=compare", ("'compare'", "originals")),
        ("base.make=null", ("base", "`path`", "or `make`")),
        ("rehearsal.batch_size=5", ("train.accumulation", "rehearsal.batch_size")),
        ("nonsense", ("'nonsense'", "dotted.key=value")),
        ("name.first=1", ("'name' is not a section",)),
    ],
)
def test_refusals_name_field_value_and_choices(recipe_file: Path, override: str, said: tuple[str, ...]) -> None:
    message = refusal(recipe_file, override)
    for part in said:
        assert part in message


def test_files_that_are_no_recipe(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "missing.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1")
    assert "not YAML" in refusal(broken)
    broken.write_text("- 1")
    assert "expected a mapping" in refusal(broken)
    broken.write_text("name: x")
    assert "base is required" in refusal(broken)


def test_overrides_are_yaml(recipe_file: Path) -> None:
    recipe = load(recipe_file, ["train.learning_rate=2e-3", "rehearsal=null", "baselines.full_fine_tuning.steps=7"])
    assert recipe.train.learning_rate == 0.002
    assert recipe.rehearsal is None
    assert recipe.baselines.full_fine_tuning is not None
    assert recipe.baselines.full_fine_tuning.steps == 7
