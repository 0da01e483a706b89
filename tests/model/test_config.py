"""Configurations: published ones of every family are understood, ours come back as they were, bad ones are refused."""

import json

import pytest
from transformers import AutoConfig

from cllm_model import ControlLLMConfig, Expansion, PublishedConfig
from cllm_model.families import infer_family
from cllm_model.published import from_published_config, to_published
from tests.model.published_files import FIELDS, LLAMA31_ROPE, Case

FAMILIES = list(FIELDS)
VARIANTS = {
    "": {},
    "window": {"sliding_window": 6, "use_sliding_window": True, "max_window_layers": 2},
    "tied": {"tie_word_embeddings": True},
    "rope": LLAMA31_ROPE,
}


def variants(family):
    """The variants of a family, in its own fields only."""
    for name, fields in VARIANTS.items():
        own = {key: value for key, value in fields.items() if key in FIELDS[family] or key.startswith("rope")}
        if own or not name:
            yield Case(family, "hybrid", "dlerp", num_exp_layers=4, fields=own)


CASES = [case for family in FAMILIES for case in variants(family)]


def read(case, directory):
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps(case.config_json()))
    return AutoConfig.from_pretrained(directory)


def family_part(config):
    """What transformers' own class of the family makes of the fields."""
    volatile = {"transformers_version", "architectures", "dtype", "use_cache", "_name_or_path", "name_or_path"}
    return {name: value for name, value in config.to_dict().items() if name not in volatile}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.family}-{'-'.join(case.fields)}")
def test_published_fields_mean_what_they_mean_to_the_family(case, tmp_path):
    config = read(case, tmp_path)
    assert type(config) is PublishedConfig
    assert config.base_model_type == case.family
    plain = family_part(case.plain_config())
    found = config.to_dict()
    assert {name: found.get(name) for name in plain if name != "model_type"} == {
        name: value for name, value in plain.items() if name != "model_type"
    }
    assert config.use_cache  # the authors write false, which says nothing about inference


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.family}-{'-'.join(case.fields)}")
def test_both_formats_come_back_as_they_were(case, tmp_path):
    published = read(case, tmp_path)
    ours = from_published_config(published)
    assert type(ours) is ControlLLMConfig
    ours.save_pretrained(tmp_path / "ours")
    reread = AutoConfig.from_pretrained(tmp_path / "ours")
    assert (type(reread), reread.base_model_type, reread.dual) == (ControlLLMConfig, case.family, published.dual)
    assert family_part(reread.base_config()) == family_part(ours.base_config())
    back = to_published(reread)
    assert back.dual == published.dual
    back.save_pretrained(tmp_path / "back")
    written = json.loads((tmp_path / "back" / "config.json").read_text())
    assert written["model_type"] == "causallmexpansion"
    assert written["architectures"] == ["CausalLMExpansion"]
    theirs = case.config_json()["expansion"] | {"expanded_from": ""}
    assert written["expansion"] == theirs
    assert AutoConfig.from_pretrained(tmp_path / "back").base_model_type == case.family


@pytest.mark.parametrize("family", FAMILIES)
def test_the_base_config_has_the_bases_layers_and_windows(family, tmp_path):
    """Stacked layers are taken out, and each layer keeps its own type of attention."""
    case = Case(
        family, "hybrid", num_exp_layers=4, fields={k: v for k, v in VARIANTS["window"].items() if k in FIELDS[family]}
    )
    config = read(case, tmp_path)
    base = config.base_config()
    assert (base.model_type, base.num_hidden_layers, config.num_hidden_layers) == (family, 4, 6)
    if family in ("qwen2", "qwen3"):
        assert config.layer_types == ["full_attention"] * 2 + ["sliding_attention"] * 4
        kept = [i for i, sort in enumerate(case.layout) if sort != "stacked"]
        assert base.layer_types == [config.layer_types[i] for i in kept]
    again = ControlLLMConfig.from_base(base, config.dual)
    assert getattr(again, "layer_types", None) == getattr(config, "layer_types", None)
    assert again.dual == config.dual


def test_families_are_told_apart_by_their_fields():
    assert [infer_family(FIELDS[family]) for family in FAMILIES] == FAMILIES


@pytest.mark.parametrize(
    ("family", "tensor"),
    [("qwen2", "model.layers.0.self_attn.q_proj.bias"), ("qwen3", "model.layers.0.self_attn.q_norm.weight")],
)
def test_tensors_decide_where_fields_do_not(family, tensor):
    common = set.intersection(*(set(fields) for fields in FIELDS.values())) - {"sliding_window"}
    assert infer_family(common, [tensor]) == family
    with pytest.raises(ValueError, match="family cannot be told .*allowed: llama, mistral, qwen2, qwen3"):
        infer_family(common, ["model.layers.0.self_attn.q_proj.weight"])


GOOD = {"expanded_layers": (1, 3), "merge_method": "dlerp"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"merge_method": "mean"}, "merge_method: 'mean' is not one of lerp, slerp, dlerp, dlerpin, moe, proj, prog"),
        ({"kind": "both"}, "kind: 'both' is not one of concat, stack, hybrid"),
        ({"branch": "lora"}, "branch: 'lora' is not one of full"),
        ({"norm_alpha": 1.5}, "norm_alpha: 1.5 .* a number from 0 to 1, or -1"),
        ({"norm_alpha": float("nan")}, "norm_alpha: nan"),
        ({"interpolation_factor": None}, "null is not allowed with merge_method 'dlerp'"),
        (
            {"interpolation_factor": None, "merge_method": "lerp", "norm_alpha": -1},
            "null is not allowed with a norm_alpha of -1",
        ),
        ({"expanded_layers": (3, 1)}, r"expanded_layers: \[3, 1\] is not an ascending list"),
        ({"expanded_layers": (1, 1)}, r"expanded_layers: \[1, 1\] is not an ascending list"),
        ({"expanded_layers": (-1, 1)}, r"expanded_layers: \[-1, 1\] is not an ascending list"),
        ({"expanded_layers": ()}, r"expanded_layers: \[\] does not go with kind 'concat', which has some"),
        ({"stacked_layers": (2,)}, r"stacked_layers: \[2\] does not go with kind 'concat', which has none"),
        ({"kind": "hybrid"}, r"stacked_layers: \[\] does not go with kind 'hybrid', which has some"),
        ({"kind": "stack"}, r"expanded_layers: \[1, 3\] does not go with kind 'stack', which has none"),
        ({"kind": "hybrid", "stacked_layers": (3,)}, "layer 3 cannot be stacked"),
        ({"kind": "hybrid", "stacked_layers": (2,)}, "layer 1 cannot be stacked, or copied"),
        ({"kind": "hybrid", "stacked_layers": (0,)}, "layer 0 cannot be stacked"),
    ],
)
def test_bad_expansions_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        Expansion(**GOOD | changes)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"merge_method": "lerp"}, "expansion.expanded_layers: missing"),
        (GOOD | {"layers": 2}, "expansion.layers: unknown field; allowed: branch, expanded_layers"),
    ],
)
def test_bad_expansion_fields_are_refused(values, said):
    with pytest.raises(ValueError, match=said):
        Expansion.from_dict(values)


def test_bad_configs_are_refused():
    with pytest.raises(ValueError, match="base_model_type: 'gpt2' is not one of llama, mistral, qwen2, qwen3"):
        ControlLLMConfig(base_model_type="gpt2")
    with pytest.raises(ValueError, match="auto_map: not allowed"):
        ControlLLMConfig(auto_map={"AutoConfig": "x.Y"})
    with pytest.raises(ValueError, match="expansion: missing"):
        _ = ControlLLMConfig().dual
    too_far = ControlLLMConfig(num_hidden_layers=2, expansion={"expanded_layers": [1, 2], "merge_method": "lerp"})
    with pytest.raises(ValueError, match="layer 2 is out of range; the model has layers 0 to 1"):
        _ = too_far.dual


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"expand_type": "mixed"}, "mixed"),
        ({"merge_method": "mean"}, "merge_method: 'mean'"),
        ({"num_ori_layers": 5}, "num_ori_layers: 5 .* the 4 layers that num_hidden_layers says"),
        ({"interpolation_norm_alpha": 2}, "norm_alpha: 2"),
        ({"freezed_layers": [0, 1, 2, 3]}, "expanded_layers"),
    ],
)
def test_bad_published_expansions_are_refused(changes, said, tmp_path):
    case = Case()
    values = case.config_json()
    values["expansion"] |= changes
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=said):
        _ = AutoConfig.from_pretrained(tmp_path).dual
    del values["expansion"]["num_exp_layers"]
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match="expansion.num_exp_layers: missing"):
        _ = AutoConfig.from_pretrained(tmp_path).dual


def test_what_the_published_format_cannot_say_is_refused():
    """Its hybrid takes the layers in turn; a list of one's own need not."""
    config = ControlLLMConfig(
        num_hidden_layers=6,
        expansion=Expansion((1,), "lerp", "hybrid", stacked_layers=(5,)).to_dict(),
    )
    with pytest.raises(ValueError, match="published format cannot say where its layers are"):
        to_published(config)
