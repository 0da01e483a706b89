"""Recipes: what is refused, and what the message says."""

from pathlib import Path

import pytest
import yaml

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
        ("divergence.loss=l1", ("divergence.loss = 'l1'", "'cosine', 'cosine_linear', 'mse' or 'none'")),
        ("expansion.kind=both", ("expansion.kind = 'both'", "'concat', 'stack' or 'hybrid'")),
        ("expansion.layers=0", ("expansion.layers = 0", "greater than 0")),
        ("expansion.layers=null", ("expansion", "one of `layers`", "`at`")),
        ("expansion.at=[1]", ("expansion", "one of `layers`", "the other is null")),
        ("expansion={at: [1, 0]}", ("`at` ([1, 0])", "ascending")),
        ("expansion={at: [1, 1]}", ("`at` ([1, 1])", "ascending")),
        ("expansion={at: [-1]}", ("expansion.at.0 = -1", "greater than or equal to 0")),
        ("expansion={at: []}", ("expansion.at = []", "at least 1 item")),
        ("expansion.kind=hybrid", ("hybrid", "even number")),
        ("expansion={at: [0, 1, 2], kind: hybrid}", ("hybrid", "even number")),
        ("expansion.initial_factor=null", ("`initial_factor` null", "'lerp' only, not 'dlerp'")),
        ("expansion={method: lerp, initial_factor: null, freeze_factor: true}", ("`freeze_factor` needs",)),
        ("expansion={method: lerp, initial_factor: null, norm_alpha: -1}", ("`norm_alpha -1` needs",)),
        ("expansion.initial_factor=.nan", ("expansion.initial_factor = nan", "finite")),
        ("expansion.norm_alpha=2", ("expansion.norm_alpha = 2", "0 to 1, or -1")),
        ("expansion={kind: stack, norm_alpha: 0.1}", ("`norm_alpha` has no effect", "stack")),
        ("expansion={kind: stack, freeze_factor: true}", ("`freeze_factor` has no effect", "stack")),
        ("expansion={method: moe}", ("moe", "divergence.weight -1 only")),
        ("expansion={kind: stack}", ("divergence.loss ('mse')", "'none'")),
        ("divergence={loss: none, weight: 0.5}", ("`weight` (0.5) has no effect",)),
        ("divergence.weight=-2", ("-2", "-1 for the layer's own")),
        ("train.learning_rate=0", ("train.learning_rate = 0", "greater than 0")),
        ("divergence={loss: none, positions: prompt}", ("`positions` (prompt) has no effect",)),
        ("train={save_every: 30, log_every: 20}", ("`save_every` (30) must be a multiple of `log_every` (20)",)),
        ("train.keep=3", ("`keep` (3) has no effect without `save_every`",)),
        ("train={schedule: linear, final_learning_rate: 0.1}", ("`final_learning_rate` has no effect", "'linear'")),
        ("train={freeze_interpolators: true, gate_learning_rate: 0.1}", ("none of them trains",)),
        ("train.precision=fp8", ("train.precision = 'fp8'", "'fp32' or 'bf16'")),
        ("new=null", ("nothing to learn", "`data`")),
        ("originals=[]", ("originals: a base made here learns them",)),
        ("seed=-1", ("seed = -1", "greater than or equal to 0")),
        ("train.accumulation=3", ("accumulation", "batch_size")),
        ("train={sharding: zero2, precision: bf16}", ("'zero2' trains in fp32 only", "'fsdp'")),
        ("train={attention: flash_attention_2}", ("'flash_attention_2' computes in bf16 only", "'fp32'")),
        ("baselines.others={a: {method: lora, train: {sharding: fsdp}}}", ("method 'lora'", "'fsdp' must be 'none'")),
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


def test_data_and_skills_that_do_not_go_together(recipe_file: Path, tmp_path: Path) -> None:
    data, base = "data={sources: [{path: a.jsonl}]}", [f"base={{path: {tmp_path}}}"]
    skill = "{name: a, train: a.jsonl, test: b.jsonl}"
    assert "there is both" in refusal(recipe_file, *base, data, f"new={skill}")
    assert "give both, or neither" in refusal(recipe_file, *base, data, "new=null")
    unscored = [*base, data, "new=null", "originals=[]"]
    assert "`baselines` follows the score" in refusal(recipe_file, *unscored)
    assert load(recipe_file, [*unscored, "baselines={}"]).sources is not None


NONE = "divergence={loss: none}"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["expansion={method: proj}", NONE], "learns its map from the divergence loss"),
        (["expansion={method: proj}", "divergence.weight=0"], "learns its map from the divergence loss"),
        (["expansion={method: moe}", NONE], "divergence.weight -1 only"),
        (["expansion={kind: stack}", NONE], "rehearsal.gate .* it must be 0"),
        (["expansion={method: lerp, initial_factor: null}"], "rehearsal.gate .* it must be 0"),
        (["expansion={method: slerp, freeze_factor: true}"], "rehearsal.gate .* it must be 0"),
        (["expansion={kind: stack}", NONE, "rehearsal=null", "train.gate_learning_rate=1"], "gate_learning_rate"),
        (
            ["expansion={method: lerp, freeze_factor: true}", "rehearsal=null", "train.gate_learning_rate=1"],
            "train.gate_learning_rate .* leave it out",
        ),
    ],
)
def test_what_would_have_no_effect_is_refused(recipe_file: Path, overrides: list[str], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        load(recipe_file, overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        ["expansion={at: [0, 1], kind: hybrid, method: slerp}"],
        ["expansion={kind: stack}", NONE, "rehearsal.gate=0"],
        ["expansion={method: moe}", "divergence.weight=-1", "train.gate_learning_rate=1e-3"],
        ["expansion={method: lerp, initial_factor: null}", "rehearsal.gate=0"],
        ["expansion={method: dlerp, freeze_factor: true}"],
        ["expansion={method: prog, freeze_factor: true}", "rehearsal=null", "train.gate_learning_rate=1e-3"],
        ["expansion={norm_alpha: -1, method: lerp}"],
    ],
)
def test_the_whole_architecture_can_be_asked_for(recipe_file: Path, tmp_path: Path, overrides: list[str]) -> None:
    """And what a report keeps of a recipe is the same recipe again."""
    recipe = load(recipe_file, overrides)
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    assert load(again) == recipe


def test_layers_default_to_four_unless_they_are_listed(recipe_file: Path) -> None:
    assert load(recipe_file, ["expansion={}"]).expansion.layers == 4
    listed = load(recipe_file, ["expansion={at: [1]}"]).expansion
    assert (listed.layers, listed.at) == (None, [1])


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
