"""Checkpoints in the format that the paper's authors publish, with their architecture's name, run too."""

import json

import pytest
from transformers import AutoConfig
from vllm.engine.arg_utils import AsyncEngineArgs

from cllm_model.vllm.stack import as_expansion, hf_overrides
from serve import launch
from serve.settings import Settings
from tests import tiny_models
from tests.greedy import assert_greedy, load_hf
from tests.vllm_engines import generate, start, tokens_of


@pytest.fixture(scope="module")
def published(base):
    """A lerp checkpoint whose config.json is written as theirs are."""
    directory = tiny_models.write_dual(base, base.parent / "published", method="lerp")
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


@pytest.fixture(scope="module")
def stack(base):
    dual = tiny_models.write_dual(base, base.parent / "stack", kind="stack")
    return tiny_models.write_published(dual, base.parent / "published-stack")


def test_a_published_stack_is_told_from_plain_models(stack, base, golden):
    assert json.loads((stack / "config.json").read_text())["model_type"] == "llama"
    assert hf_overrides(stack) is hf_overrides(golden / "llama_stack") is as_expansion
    assert not hf_overrides(base)
    assert not hf_overrides(golden / "merged_llama_stack")  # merged back
    plain = AutoConfig.from_pretrained(base)
    assert as_expansion(plain) is plain


def test_the_server_gives_a_published_stack_its_dial(stack):
    args = launch.prepare(Settings(stack), [])
    config = AsyncEngineArgs.from_cli_args(args).create_engine_config().model_config
    assert config.architecture == "CausalLMExpansion" and config.hf_config.dual.stacked_layers == (2, 5)
    assert config.hf_config.base_model_type == "llama"
    with pytest.raises(ValueError, match="--hf-overrides.*cllm convert"):
        launch.prepare(Settings(stack), ["--hf-overrides", '{"max_position_embeddings": 64}'])
