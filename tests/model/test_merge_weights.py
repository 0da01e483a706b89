"""Merging back with weights that were measured: those of the authors' evaluation, and those of a training report."""

import json

import pytest
import torch

from cllm_model.merge import merge
from tests.model.merging import assert_same, factor, merged_by_hand, weights
from tests.model.published_files import Case


@pytest.mark.parametrize("case", [Case(), Case(method="dlerp"), Case(kind="hybrid")], ids=["lerp", "dlerp", "hybrid"])
def test_the_authors_measured_weights_and_the_factor_for_the_rest(case, tmp_path):
    model = case.write(tmp_path / "model")
    tensors = weights(model)
    first, *rest = case.layers("dual")
    file = tmp_path / "evaluation_results.json"
    file.write_text(json.dumps({"eval_loss": 1.0, "eval_avg_interp_weights": {f"layer_{first}": 0.9}}))
    result = merge(model, tmp_path / "out", weights_from=file)
    wanted = {layer: factor(case, tensors, layer) for layer in rest} | {first: 0.9}
    wanted |= {layer: torch.sigmoid(torch.tensor(case.factor)).item() for layer in case.layers("stacked")}
    assert result.weights == pytest.approx(wanted)
    assert result.measured == {first: 0.9}
    assert_same(weights(tmp_path / "out"), merged_by_hand(case, tensors, wanted), atol=2e-6)


def test_a_reports_weights_serve_new_and_original_skills_alike(tmp_path):
    case = Case(method="dlerpin")
    model = case.write(tmp_path / "model")
    layers = [{"layer": layer, "weight_new": 0.7, "weight_originals": 0.2} for layer in case.layers("dual")]
    report = tmp_path / "measured.json"
    report.write_text(json.dumps({"schema": 1, "checkpoint": "0" * 12, "training": {"layers": layers}}))
    merge(model, tmp_path / "out", weights_from=report)
    wanted = merged_by_hand(case, weights(model), dict.fromkeys(case.layers("dual"), 0.45))
    assert_same(weights(tmp_path / "out"), wanted, atol=2e-6)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"eval_avg_interp_weights": {"layer_2": 0.5}}, "layer 2 has no two branches; .*: 1, 3"),
        ({"eval_avg_interp_weights": {"layer_1": 1.5}}, "layer 1: 1.5 is not a number from 0 to 1"),
        ({"eval_avg_interp_weights": {"layer_1": float("nan")}}, "layer 1: nan is not a number"),
        ({"eval_avg_interp_weights": {"layer_1": "half"}}, "layer 1: 'half' is not a number"),
        ({"eval_avg_interp_weights": {"first": 0.5}}, "no weights found"),
        ({"eval_avg_interp_weights": {}}, "lists no layer"),
        ({"training": {"layers": [{"layer": 1}]}}, "no weights found; allowed: a report.json"),
        ({"eval_loss": 1.0}, "no weights found"),
        ([1], "not a JSON object"),
    ],
)
def test_bad_weights_are_refused(values, said, tmp_path):
    model = Case().write(tmp_path / "model")
    (tmp_path / "weights.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=said):
        merge(model, tmp_path / "out", weights_from=tmp_path / "weights.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "weights.json"]


def test_weights_that_nothing_would_use_are_refused(golden, tmp_path):
    with pytest.raises(ValueError, match="weights_from: not allowed with expansion 'stack'"):
        merge(golden / "llama_stack", tmp_path / "out", weights_from=tmp_path / "weights.json")
