"""Every merge method, expansion and family: Hugging Face's tokens and logprobs on vLLM, scales mixed in one batch.

The matrix, one engine each, half a second: each merge method x {concat, hybrid} x family, and stacked, in all families.
Besides, each once or twice, what else a configuration may say: the published format, tied embeddings, Llama 3.1's rope
scaling, biases, windows of attention, relaxed norms (fixed and learned), no factor, all layers expanded (so the first).
`test_compiled` and `test_bfloat16` run once more what is not a plain linear blend.
"""

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from cllm_model.families import FAMILIES
from cllm_model.interpolators import MERGE_METHODS
from tests import tiny_models
from tests.greedy import assert_greedy, load_hf, logprob_errors
from tests.vllm_engines import generate, prompts, start, tokens_of

SCALES = [1.0, 0.0, 0.5, 1.7] * 3
SMALL = {"kv_cache_memory_bytes": 2**24, "max_num_seqs": 16}


@dataclass(frozen=True)
class Model:
    """A tiny model to build: what was expanded, how, and the base's own fields."""

    family: str = "llama"
    method: str = "lerp"
    kind: str = "concat"
    expansion: dict[str, Any] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)
    published: bool = False

    def __str__(self):
        words = [self.family, self.kind] + [self.method] * (self.kind != "stack") + ["published"] * self.published
        return "-".join(
            [*words, *(f"{name}={_short(value)}" for name, value in (self.expansion | self.fields).items())]
        )


def _short(value):
    return value["rope_type"] if isinstance(value, dict) else value


TIED = {"tie_word_embeddings": True}
MISTRAL_WINDOW = {"sliding_window": 24}
QWEN_WINDOW = {"use_sliding_window": True, "max_window_layers": 0, "sliding_window": 24}
FIXED_NORM = {"norm_alpha": 0.3}
LEARNED_NORM = {"norm_alpha": -1.0, "factor": 0.5}
PRODUCT = [
    *(Model(*each) for each in itertools.product(FAMILIES, MERGE_METHODS, ("concat", "hybrid"))),
    *(Model(family, kind="stack") for family in FAMILIES),
]
BESIDES = [
    *(Model(family, "dlerp", "hybrid", published=True) for family in FAMILIES),
    *(Model(family, kind="stack", published=True) for family in FAMILIES),
    *(Model(family, "slerp", fields=TIED) for family in FAMILIES),
    Model(kind="stack", expansion={"layers": 4}, fields=TIED),
    Model("mistral", "slerp", "hybrid", fields=MISTRAL_WINDOW),
    Model("qwen2", "dlerp", "hybrid", fields=QWEN_WINDOW),
    Model("qwen3", "moe", "hybrid", fields=QWEN_WINDOW),
    Model(expansion={"factor": None}),
    Model(expansion=FIXED_NORM, published=True),
    Model("qwen2", "slerp", "hybrid", expansion=FIXED_NORM),
    Model(method="dlerp", kind="hybrid", expansion=LEARNED_NORM),
    Model("qwen3", "prog", expansion=LEARNED_NORM, published=True),
    Model(method="slerp", expansion={"layers": 4}, fields={"rope_parameters": tiny_models.LLAMA_31_ROPE}),
    Model(kind="hybrid", fields={"attention_bias": True, "mlp_bias": True}),
]


@pytest.fixture(scope="module")
def asked():
    return prompts(len(SCALES), len(tiny_models.VOCABULARY))


class Built(NamedTuple):
    """Directories of a model's base, of the model in our format, and of the form in which vLLM reads it."""

    base: Path
    reference: Path
    path: Path


@pytest.fixture
def build(tmp_path):
    def write(model):
        base = tiny_models.write_base(tmp_path / "base", seed=1, family=model.family, **model.fields)
        dual = tiny_models.write_dual(base, tmp_path / "dual", model.method, kind=model.kind, **model.expansion)
        path = tiny_models.write_published(dual, tmp_path / "published") if model.published else dual
        return Built(base, dual, path)

    return write


def check(engine, built, asked):
    answers = generate(engine, asked, SCALES, tokens=24, logprobs=1)
    tokens, hf = tokens_of(answers), load_hf(built.reference)
    assert_greedy(hf, asked, tokens, SCALES)
    errors = logprob_errors(hf, asked, tokens, SCALES, [answer.logprobs for answer in answers])
    assert errors.max() < 1e-3
    at_0 = [i for i, scale in enumerate(SCALES) if scale == 0]
    assert_greedy(load_hf(built.base), [asked[i] for i in at_0], [tokens[i] for i in at_0], [0.0] * len(at_0))


@pytest.mark.parametrize("model", [*PRODUCT, *BESIDES], ids=str)
def test_hugging_face_and_vllm_agree(model, build, asked):
    built = build(model)
    check(start(built.path, **SMALL), built, asked)


LAST = {"layers": [3]}  # of 4: where inductor's fusing of the branches showed, see the model
COMPILED = [
    Model(expansion=LAST),
    Model(method="slerp", kind="hybrid", expansion=LEARNED_NORM),
    Model("qwen2", "moe", expansion=LAST),
    Model(kind="stack", published=True),
]


@pytest.mark.parametrize("model", COMPILED, ids=str)
def test_compiled(model, build, asked):
    built = build(model)
    check(start(built.path, enforce_eager=False, **SMALL), built, asked)


@pytest.mark.parametrize(
    "model",
    [
        Model(method="slerp", kind="hybrid", expansion=LEARNED_NORM),
        Model("qwen3", "prog"),
        Model("qwen2", "moe"),
        Model("mistral", kind="stack"),
    ],
    ids=str,
)
def test_bfloat16(model, build, asked):
    """Tokens may differ by rounding; scale 0 is the base bit for bit even so."""
    built = build(model)
    engine = start(built.path, dtype="bfloat16", **SMALL)
    plain = start(built.base, dtype="bfloat16", logits_processors=None, **SMALL)
    answers = generate(engine, asked, SCALES, tokens=24, logprobs=1)
    for found, expected, scale in zip(answers, generate(plain, asked, tokens=24, logprobs=1), SCALES, strict=True):
        assert (found == expected) is (scale == 0)
    hf = load_hf(built.reference).bfloat16()
    errors = logprob_errors(hf, asked, tokens_of(answers), SCALES, [answer.logprobs for answer in answers])
    print(f"logprobs: mean error {errors.mean():.3f} median {errors.median():.3f}, largest {errors.max():.3f}")  # noqa: T201
    assert errors.mean() < 0.1
