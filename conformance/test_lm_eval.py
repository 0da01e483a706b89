"""lm-eval's `local-completions` on the server against its `hf` backend on the same weights, at three strengths."""

import json
import os
import subprocess
from typing import Any

import pytest

from conformance.conftest import KEY, PYTHON, ROOT

LM_EVAL = ROOT / "build" / "conformance" / "lm-eval"
STRENGTHS = ["demo", "demo:base", "demo@0.5"]
TOLERANCE = 1e-3
"""Of an item's log-likelihood, a sum over its tokens (up to 312 in size here), in fp32 on both sides."""


@pytest.fixture(scope="module")
def found(server, tmp_path_factory) -> Any:
    """What both backends say of each item: {id: {"server" | "weights": {"scores": …, "items": …}}}."""
    directory = tmp_path_factory.mktemp("lm-eval")
    output = directory / "found.json"
    own = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(directory), "OMP_NUM_THREADS": "1", "OPENAI_API_KEY": KEY}
    subprocess.run(
        [PYTHON, ROOT / "conformance" / "harness" / "evaluate.py", server.url, output],
        env=os.environ | own | {"PYTHONPATH": f"{LM_EVAL}:{ROOT}"},
        cwd=ROOT,
        check=True,
    )
    return json.loads(output.read_text())


def likelihoods(side: Any) -> list[float]:
    return [float(response[0][0]) for item in side["items"]["choose"] for response in item]


@pytest.mark.parametrize("model", STRENGTHS)
def test_scores_are_equal(found, model):
    server, weights = found[model]["server"]["scores"], found[model]["weights"]["scores"]
    for task, metrics in {"choose": ["acc,none", "acc_norm,none"], "generate": ["exact_match,none"]}.items():
        for metric in metrics:
            print(f"{model} {task} {metric}: {server[task][metric]:.4f}")
            assert server[task][metric] == weights[task][metric]


@pytest.mark.parametrize("model", STRENGTHS)
def test_log_likelihoods_are_equal(found, model):
    server, weights = (likelihoods(found[model][side]) for side in ("server", "weights"))
    apart = max(abs(mine - theirs) for mine, theirs in zip(server, weights, strict=True))
    print(f"{model}: {len(server)} log-likelihoods, at most {apart:.1e} apart")
    assert len(server) == 120 and apart < TOLERANCE


@pytest.mark.parametrize("model", STRENGTHS)
def test_generated_texts_are_equal(found, model):
    server, weights = (found[model][side]["items"]["generate"] for side in ("server", "weights"))
    assert len(server) == 30 and server == weights


def test_each_strength_is_a_model_of_its_own(found):
    """Else the comparisons above would not notice a scale that is ignored on both sides."""
    assert len({tuple(likelihoods(found[model]["server"])) for model in STRENGTHS}) == len(STRENGTHS)
    for model in STRENGTHS[1:]:
        pairs = zip(likelihoods(found[STRENGTHS[0]]["server"]), likelihoods(found[model]["server"]), strict=True)
        assert max(abs(mine - theirs) for mine, theirs in pairs) > 100 * TOLERANCE
