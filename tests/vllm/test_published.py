"""Checkpoints in the format that the paper's authors publish, with their architecture's name, run too."""

import json

import pytest

from tests import tiny_llama
from tests.greedy import assert_greedy, load_hf
from tests.vllm_engines import generate, start, tokens_of


@pytest.fixture(scope="module")
def published(base):
    """A lerp checkpoint whose config.json is written as theirs are."""
    directory = tiny_llama.write_dual(base, base.parent / "published", method="lerp")
    ours = json.loads((directory / "config.json").read_text())
    theirs = ours | {
        "model_type": "causallmexpansion",
        "architectures": ["CausalLMExpansion"],
        "use_cache": False,
        "expansion": {
            "expand_type": "concat",
            "merge_method": "lerp",
            "num_ori_layers": 4,
            "num_exp_layers": 2,
            "freezed_layers": [0, 2],
            "interpolation_factor": 0.0,
            "expanded_from": "/nowhere",
        },
    }
    del theirs["base_model_type"]
    (directory / "config.json").write_text(json.dumps(theirs))
    return directory


def test_published_checkpoints(published, prompts):
    scales = [(1.0, 0.0, 0.5)[i % 3] for i in range(len(prompts))]
    answers = generate(start(published), prompts, scales)
    assert_greedy(load_hf(published), prompts, tokens_of(answers), scales)
