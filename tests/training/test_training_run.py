"""A whole run with a two-layer model: what it writes, and what it leaves when it fails."""

import json
import os
import signal
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import cllm_model  # noqa: F401 - registers the model
from cllm_model.checkpoint import checkpoint_hash
from cllm_model.expand import extract
from tests.forked import rank_of, run, run_all
from tests.serving import free_port
from tests.training.conftest import mini
from training import report
from training import run as run_module
from training.evaluation import evaluate, read_suite
from training.evaluation.local import load as load_local
from training.recipe import Recipe, RecipeError, load
from training.trainer import ControlTrainer


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run that the tests read from, and train further from."""
    directory = tmp_path_factory.mktemp("finished")
    recipe = directory / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(mini()))
    torch.set_num_threads(1)  # before the fixture that does it for each test
    return run_module.run(load(recipe, [f"output={directory / 'out'}"]))


def test_run_writes_a_checkpoint_and_its_report(finished: Path, tree: dict[str, Any]) -> None:
    out = finished.parent
    assert sorted(path.name for path in out.iterdir()) == ["model", "report.html", "report.json"]
    plain = json.loads(finished.read_text())
    assert plain["schema"] == 1
    assert plain["checkpoint"] == checkpoint_hash(out / "model")
    assert [(s["name"], s["kind"], s["prompts"]) for s in plain["skills"]] == [
        ("compare", "original", 4),
        ("letters", "original", 4),
        ("capitals", "new", 4),
    ]
    for skill in plain["skills"]:
        assert set(skill["scores"]) == {"base", "control", "full_fine_tuning"}
    [example] = plain["examples"]
    assert (example["prompt"], example["expected"]) == ("write apple in capitals", "APPLE")
    assert set(example["answers"]) == {"base", "control", "full_fine_tuning"}
    assert [layer["layer"] for layer in plain["training"]["layers"]] == [1]
    curve = plain["training"]["loss_curve"]
    assert [entry["step"] for entry in curve] == [2, 4]
    assert {"divergence", "kl", "gate", "weight_new/1", "alignment_rehearsed/1"} <= set(curve[0])
    assert plain["checks"]["base_at_scale_0"] == 0
    assert report.read(finished).training.steps == 4
    kept = report.read(finished).training.trunk_cache
    assert [(name, choice.cached) for name, choice in kept.items()] == [("data", False), ("rehearsal", True)]
    assert kept["rehearsal"].reason.startswith("a token is visited 2 times")
    for file in (finished, *(out / "model").iterdir()):
        assert stat.S_IMODE(file.stat().st_mode) == 0o644

    model = AutoModelForCausalLM.from_pretrained(out / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(out / "model")
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "count"}], add_generation_prompt=True, return_tensors="pt"
    )["input_ids"]
    assert torch.isfinite(model(input_ids=ids).logits).all()


@pytest.mark.parametrize(
    ("expansion", "others", "dual", "stacked"),
    [
        ({"kind": "stack", "at": [0]}, {"divergence": {"loss": "none"}, "gate": 0}, [], [1]),
        ({"kind": "hybrid", "at": [0, 1], "method": "slerp", "norm_alpha": -1}, {"gate": 1}, [2], [1]),
        ({"layers": 2, "method": "moe"}, {"divergence": {"weight": -1}, "gate": 1}, [0, 1], []),
        ({"layers": 1, "method": "lerp", "initial_factor": None}, {"gate": 0}, [1], []),
    ],
    ids=["stack", "hybrid", "moe", "null factor"],
)
def test_runs_of_other_expansions(
    expansion: dict[str, Any],
    others: dict[str, Any],
    dual: list[int],
    stacked: list[int],
    tree: dict[str, Any],
    tmp_path: Path,
) -> None:
    """From recipe to report; only dual-branch layers have a weight and an alignment to report."""
    tree["expansion"] = expansion
    tree["rehearsal"]["gate"] = others.pop("gate")
    tree |= others | {"baselines": {}, "output": str(tmp_path / "out")}
    file = tmp_path / "other.yaml"
    file.write_text(yaml.safe_dump(tree))
    found = report.read(run_module.run(load(file)))
    assert [layer.layer for layer in found.training.layers] == dual
    assert all(0 <= layer.weight_new <= 1 for layer in found.training.layers)
    assert found.checks["base_at_scale_0"] == 0
    assert found.recipe["expansion"]["kind"] == expansion.get("kind", "concat")
    config = AutoConfig.from_pretrained(tmp_path / "out" / "model").dual
    assert (list(config.expanded_layers), list(config.stacked_layers)) == (dual, stacked)
    assert ("divergence" in found.training.loss_curve[0]) == ("gate" in found.training.loss_curve[0]) == bool(dual)


@pytest.mark.parametrize(
    ("expansion", "said"),
    [
        ("{layers: 3}", "expansion.layers: 3 does not divide the base's 2 layers; allowed: 1, 2"),
        ("{at: [1, 2]}", "expansion.layers: 2 is out of range; the base has layers 0 to 1"),
    ],
)
def test_layers_that_the_base_does_not_have_are_refused_before_training(
    recipe_file: Path, expansion: str, said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        run_module.run(load(recipe_file, [f"expansion={expansion}"]))


def test_a_reused_base_is_named_as_such_but_not_its_directory(
    finished: Path, recipe_file: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    extract(finished.parent / "model", base)
    changes = [f"base.path={base}", "baselines.full_fine_tuning=null", "rehearsal=null", f"output={tmp_path / 'again'}"]
    again = report.read(run_module.run(load(recipe_file, changes)))
    assert again.training.base_reused
    assert again.training.base_loss_curve == []
    assert again.recipe["base"]["path"] is None
    assert str(tmp_path) not in again.model_dump_json()


def test_skills_from_files_on_a_given_base(finished: Path, tree: dict[str, Any], tmp_path: Path) -> None:
    extract(finished.parent / "model", tmp_path / "base")
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps({"text": text}) + "\n" for text in ("count from 1 to 9", "write in capitals")))
    for name in ("train", "test", "old"):
        turns = [{"role": "user", "content": f"{name}?"}, {"role": "assistant", "content": "yes"}]
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"messages": turns}) + "\n")
    tree |= {
        "base": {"path": str(tmp_path / "base")},
        "originals": [{"name": "old", "test": str(tmp_path / "old.jsonl")}],
        "new": {"name": "new", "train": str(tmp_path / "train.jsonl"), "test": str(tmp_path / "test.jsonl")},
        "rehearsal": None,
        "baselines": {},
        "examples": [],
        "evaluation": tree["evaluation"] | {"suites": [str(texts)]},
        "output": str(tmp_path / "files"),
    }
    recipe = tmp_path / "files.yaml"
    recipe.write_text(yaml.safe_dump(tree))
    found = report.read(run_module.run(load(recipe)))
    assert [(skill.name, skill.label, skill.prompts) for skill in found.skills] == [
        ("old", "old", 1),
        ("new", "new", 1),
    ]
    assert not found.training.base_reused
    assert found.recipe["evaluation"]["suites"] == ["texts.jsonl"]
    assert str(tmp_path) not in (tmp_path / "files" / "report.json").read_text()
    bits = {measure.scale: measure.value for measure in found.measures if measure.metric == "bits_per_byte"}
    assert list(bits) == [0, 0.25, 0.5, 0.75, 1] and bits[0] != bits[1]
    base = evaluate(load_local(tmp_path / "base", 2, 8, 99), [read_suite(str(texts))], [1.0])
    assert base[0].value == pytest.approx(bits[0], rel=1e-6)


@pytest.mark.parametrize("method", ["dlerp", "moe"])  # a fresh gate of moe is random
def test_same_seed_same_weights(method: str, finished: Path, recipe_file: Path, tmp_path: Path) -> None:
    extract(finished.parent / "model", tmp_path / "base")
    changes = ["baselines.full_fine_tuning=null", "rehearsal=null", "divergence.weight=-1"]
    changes += [f"base.path={tmp_path / 'base'}", f"expansion.method={method}"]
    hashes = {
        checkpoint_hash(run_module.run(load(recipe_file, [*changes, f"output={tmp_path / name}"])).parent / "model")
        for name in ("a", "b")
    }
    assert len(hashes) == 1


KILL_AT = 3


def killed_at(recipe: Recipe, step: int) -> None:
    """Run a recipe in a process that is killed at an update."""
    torch.set_num_threads(1)
    original = ControlTrainer.training_step

    def step_or_die(self: ControlTrainer, *args: Any, **kwargs: Any) -> Any:
        # the base is trained first, for more updates and without checkpoints
        if self.args.save_strategy == "steps" and self.state.global_step == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, *args, **kwargs)

    ControlTrainer.training_step = step_or_die  # type: ignore[method-assign]
    run_module.run(recipe)


def test_a_killed_run_goes_on_and_ends_as_an_unbroken_one(recipe_file: Path, tmp_path: Path) -> None:
    changes = ["baselines={}", "train.save_every=2", "examples=[]"]
    unbroken = run_module.run(load(recipe_file, [*changes, f"output={tmp_path / 'unbroken'}"]))
    broken = load(recipe_file, [*changes, f"output={tmp_path / 'broken'}"])
    assert run(killed_at, broken, KILL_AT) == -signal.SIGKILL
    left = {path.name for path in (tmp_path / "broken" / "unfinished").iterdir()}
    assert {"recipe.json", "base", "pool.safetensors", "checkpoints"} <= left
    with pytest.raises(RecipeError, match="holds an unfinished run; go on with --resume"):
        run_module.run(broken)
    with pytest.raises(RecipeError, match=r"train.learning_rate = 0.5: the unfinished run in .* has 0.001"):
        run_module.run(load(recipe_file, [*changes, f"output={broken.output}", "train.learning_rate=0.5"]), resume=True)
    resumed = run_module.run(broken, resume=True)
    first, second = (report.read(path) for path in (unbroken, resumed))
    assert first.checkpoint == second.checkpoint
    assert first.training.loss_curve == second.training.loss_curve
    assert first.training.base_loss_curve == second.training.base_loss_curve
    assert first.skills == second.skills
    assert sorted(path.name for path in broken.output.iterdir()) == ["model", "report.html", "report.json"]


def one_of(rank: int, processes: int, port: int, recipe: Recipe) -> None:
    with rank_of(rank, processes, port):
        run_module.run(recipe)


def test_two_processes_make_one_run(recipe_file: Path, tmp_path: Path) -> None:
    """As torchrun starts them: both train base and model, one writes, and the losses are those of one process."""
    changes = ["baselines={}", "examples=[]"]
    alone = run_module.run(load(recipe_file, [*changes, f"output={tmp_path / 'alone'}"]))
    together = load(recipe_file, [*changes, "train.accumulation=1", f"output={tmp_path / 'together'}"])
    port = free_port()
    assert run_all(one_of, [(rank, 2, port, together) for rank in range(2)]) == [0, 0]
    one, two = (report.read(path).training for path in (alone, together.output / "report.json"))
    assert len(one.loss_curve) == len(two.loss_curve) == 2
    for mine, theirs in zip(one.loss_curve, two.loss_curve, strict=True):
        for part in ("loss", "divergence", "kl", "gate"):
            assert mine[part] == pytest.approx(theirs[part], abs=1e-4)  # the base's training rounded differently too


def test_failed_run_leaves_nothing(recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise RuntimeError("disk full")

    monkeypatch.setattr("training.outcome.report.environment", fail)  # after the weights were written
    changes = ["baselines.full_fine_tuning=null", "rehearsal=null"]
    with pytest.raises(RuntimeError, match="disk full"):
        run_module.run(load(recipe_file, [*changes, f"output={tmp_path / 'out'}"]))
    assert list((tmp_path / "out").iterdir()) == []


def test_an_existing_model_is_refused_before_training(recipe_file: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / "model").mkdir(parents=True)
    with pytest.raises(ValueError, match="holds a model already"):
        run_module.run(load(recipe_file, [f"output={tmp_path / 'out'}"]))
