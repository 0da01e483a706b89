"""Evaluation of models in memory: scores, likelihoods and intervals against independent computations."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import cllm
from tests import tiny_models
from training.data import DataError
from training.evaluation import LocalModel, Question, at_scale, evaluate, harness, local, read_suite
from training.evaluation.target import windows
from training.intervals import bootstrap_ratio, normal, wilson
from training.measure import Results

TEXTS = ["the quick brown fox", "jumps over", "a lazy dog and then runs a long way home through the woods", "ok"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.write_base(tmp_path_factory.mktemp("eval") / "base")


@pytest.fixture(scope="module")
def dual(base: Path) -> Path:
    return tiny_models.write_dual(base, base.parent / "dual")


def loaded(path: Path, **changes: int) -> LocalModel:
    return local.load(path, **({"batch_size": 3, "max_new_tokens": 8, "window": 64} | changes))


def jsonl(path: Path, records: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


# Intervals


def test_wilson_intervals_are_the_published_ones() -> None:
    """R: binom::binom.confint(x, n, methods = "wilson")."""
    assert wilson(8, 10) == pytest.approx((0.4901625, 0.9433178), abs=1e-6)
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775328), abs=1e-6)
    assert wilson(10, 10) == pytest.approx((0.7224672, 1.0), abs=1e-6)
    assert wilson(263, 263)[1] == 1 and wilson(0, 263)[0] == 0


def test_normal_interval() -> None:
    assert normal(0.5, 0.1) == pytest.approx((0.5 - 0.1959964, 0.5 + 0.1959964), abs=1e-6)


def test_bootstrap_of_many_texts_is_the_normal_interval() -> None:
    values = np.random.default_rng(1).normal(5, 2, 4000)
    expected = normal(values.mean(), values.std() / math.sqrt(len(values)))
    found = bootstrap_ratio(list(values), [1.0] * len(values))
    assert found == pytest.approx(expected, abs=0.1 * (expected.high - expected.low))
    assert bootstrap_ratio(list(values), [1.0] * len(values)) == found
    assert bootstrap_ratio([3.0], [2.0]) is None


# Likelihood


def nats(path: Path, text: str, scale: float | None) -> float:
    """Transformers' own loss, one text at a time."""
    model = AutoModelForCausalLM.from_pretrained(path).eval()
    ids = torch.tensor([AutoTokenizer.from_pretrained(path)(text)["input_ids"]])
    given = {} if scale is None else {"control_scale": scale}
    with torch.inference_mode():
        return model(ids, labels=ids, **given).loss.item() * (ids.shape[1] - 1)


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0])
def test_likelihoods_are_transformers_own_losses(dual: Path, scale: float) -> None:
    found = loaded(dual).likelihoods(TEXTS, scale)
    assert [entry.nats for entry in found] == pytest.approx([nats(dual, text, scale) for text in TEXTS], rel=1e-5)
    # One token a character and no start mark: the first of each text is not predicted, nor are its bytes counted.
    assert [entry.tokens for entry in found] == [entry.bytes for entry in found] == [len(text) - 1 for text in TEXTS]


def test_scale_0_is_the_base(base: Path, dual: Path) -> None:
    in_base = [entry.nats for entry in loaded(base).likelihoods(TEXTS, 1.0)]
    assert [entry.nats for entry in loaded(dual).likelihoods(TEXTS, 0.0)] == in_base
    assert [entry.nats for entry in loaded(dual).likelihoods(TEXTS, 1.0)] != in_base


def test_long_texts_are_cut_into_windows(dual: Path) -> None:
    assert windows([1, 2, 3, 4, 5, 6], 3) == [[1, 2, 3], [3, 4, 5], [5, 6]]
    assert windows([1, 2, 3], 3) == [[1, 2, 3]] and windows([1], 3) == [[1]]
    text = TEXTS[2]
    parts = [text[start : start + 10] for start in range(0, len(text) - 1, 9)]
    found = loaded(dual, window=10).likelihoods([text], 1.0)[0]
    assert found.nats == pytest.approx(sum(nats(dual, part, 1.0) for part in parts), rel=1e-5)
    assert found.tokens == len(text) - 1


# Suites


def greedy(path: Path, prompt: str, scale: float, tokens: int) -> str:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(path).eval(), AutoTokenizer.from_pretrained(path)
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        for _ in range(tokens):
            best = model(ids, control_scale=scale).logits[0, -1].argmax()
            ids = torch.cat([ids, best[None, None]], dim=1)
            if best == tokenizer.eos_token_id:
                break
    return str(tokenizer.decode(ids[0, len(prompt) :], skip_special_tokens=True))  # a token a character


def test_exact_match_at_every_scale(dual: Path, tmp_path: Path) -> None:
    prompts = ["one", "a second prompt", "three"]
    expected = [greedy(dual, prompts[0], 1, 8), greedy(dual, prompts[1], 1, 8), "never"]
    assert expected[:2] != [greedy(dual, prompt, 0, 8) for prompt in prompts[:2]]
    pairs = list(zip(prompts, expected, strict=True))
    file = jsonl(tmp_path / "texts.jsonl", [{"prompt": prompt, "completion": answer} for prompt, answer in pairs])
    right = {scale: sum(greedy(dual, prompt, scale, 8) == answer for prompt, answer in pairs) for scale in (0, 1)}
    at_0, at_1 = evaluate(loaded(dual), [read_suite(str(file))], [0.0, 1.0])
    assert (at_0.value, at_1.value) == (right[0] / 3, right[1] / 3) and right[1] == 2
    assert (at_1.low, at_1.high) == wilson(2, 3) and at_1.interval == "wilson" and at_1.count == 3


def test_a_conversation_is_asked_through_the_chat_template(dual: Path, tmp_path: Path) -> None:
    answer = greedy(dual, "u:hello there;a:", 1, 8)
    assert answer
    turns = [{"role": "user", "content": "hello there"}, {"role": "assistant", "content": answer}]
    [measure] = evaluate(loaded(dual), [read_suite(str(jsonl(tmp_path / "chats.jsonl", [{"messages": turns}])))], [1.0])
    assert (measure.suite, measure.value) == ("chats", 1.0)


def test_perplexity_by_domain(dual: Path, tmp_path: Path) -> None:
    records = [{"text": text, "domain": "code" if i % 2 else "prose"} for i, text in enumerate(TEXTS)]
    suite = read_suite(str(jsonl(tmp_path / "texts.jsonl", records)))
    found = {(m.part, m.metric): m for m in evaluate(loaded(dual), [suite], [1.0])}
    total, length = sum(nats(dual, text, 1.0) for text in TEXTS[1::2]), sum(len(text) - 1 for text in TEXTS[1::2])
    assert found["code", "bits_per_byte"].value == pytest.approx(total / length / math.log(2), rel=1e-5)
    assert found["code", "token_perplexity"].value == pytest.approx(math.exp(total / length), rel=1e-5)
    for measure in found.values():
        assert measure.low is not None and measure.high is not None
        assert measure.low <= measure.value <= measure.high and measure.interval == "bootstrap"
    [alone, _] = evaluate(loaded(dual), [read_suite(str(jsonl(tmp_path / "one.jsonl", records[:1])))], [1.0])
    assert alone.low is alone.high is alone.interval is None


def test_a_model_is_left_as_it_was(dual: Path) -> None:
    target = loaded(dual)
    target.model.train()
    target.model.control_scale = 0.25
    target.answers([Question("one", "")], 1.0)
    assert target.model.training and target.model.control_scale == 0.25
    with pytest.raises(KeyError), at_scale(target.model, 0.5):
        raise KeyError
    assert target.model.control_scale == 0.25


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("", "no record in it"),
        ('{"text": "abc"}\nnot json\n', r"suite.jsonl:2: not JSON"),
        ('{"text": "abc"}\n\n{"prompt": "a", "completion": "b"}\n', r"suite.jsonl:3: no text"),
        ('{"question": "abc"}\n', "of no known format"),
        ('{"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]}\n', "no message of the"),
        ('{"messages": [{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}]}\n', "does not end"),
        ('{"text": "a"}\n', "single character"),
        ('{"text": "abc", "domain": 3}\n', "domain = 3"),
    ],
)
def test_suites_that_cannot_be_used(lines: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "suite.jsonl").write_text(lines)
    with pytest.raises(DataError, match=said):
        read_suite(str(tmp_path / "suite.jsonl"))


def test_a_suite_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="absent.jsonl"):
        read_suite(str(tmp_path / "absent.jsonl"))


def test_lm_eval_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"control-llm-runtime\[eval\]"):
        read_suite("lm-eval:arc_easy")


# The command


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as end:
        cllm.main(["eval", *map(str, arguments)])
    return int(end.value.code or 0)


def test_the_command_writes_and_tabulates(dual: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    questions = jsonl(
        tmp_path / "skills.jsonl", [{"prompt": "one", "completion": "x"}, {"prompt": "a", "completion": "b"}]
    )
    texts = jsonl(tmp_path / "texts.jsonl", [{"text": text} for text in TEXTS])
    out = tmp_path / "found.json"
    assert run(dual, "--suite", f"{questions},{texts}", "--scales", "0,.5,1", "--output", out, "--limit", 3) == 0
    results = Results.model_validate_json(out.read_text())
    assert (results.model, results.backend, results.scales) == ("dual", "transformers", [0, 0.5, 1])
    assert [(suite.name, suite.kind, suite.count) for suite in results.suites] == [
        ("skills", "exact match", 2),
        ("texts", "perplexity", 3),
    ]
    assert len(results.measures) == 3 * (1 + 2)
    assert str(tmp_path) not in out.read_text()
    shown = capsys.readouterr().out
    assert "scale 0.5" in shown and "bits_per_byte" in shown and "0.000 [0.000, 0.658]" in shown


def test_a_plain_checkpoint_has_one_scale(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    suite = jsonl(tmp_path / "texts.jsonl", [{"text": text} for text in TEXTS])
    assert run(base, "--suite", suite) == 0
    assert "scale 1" in capsys.readouterr().out
    assert run(base, "--suite", suite, "--scales", "0,1") == 2
    assert "plain checkpoint, which has no dial" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--scales", "0,high"], "expected numbers separated by commas"),
        (["--scales", "0,3"], "scales: 3.0 is out of range"),
        (["--scales", "1,0.5,1"], "name each once"),
        (["--output", "absent/out.json"], "there is no directory 'absent'"),
        (["--suite", "{suite},{suite}"], "two have one name"),
        (["--tokenizer", "{here}"], "tokenizer: needed with lm-eval tasks on a server"),
    ],
)
def test_bad_input_is_refused_before_anything_is_loaded(
    options: list[str],
    said: str,
    dual: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(local, "load", _never)
    suite = jsonl(tmp_path / "texts.jsonl", [{"text": "some text"}])
    filled = [option.format(suite=suite, here=tmp_path) for option in options]
    assert run(dual, *([] if "--suite" in filled else ["--suite", suite]), *filled) == 2
    assert said in capsys.readouterr().err


def _never(*arguments: object) -> None:
    raise AssertionError("loaded")


def test_models_that_cannot_be_evaluated(dual: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    suite = jsonl(tmp_path / "texts.jsonl", [{"text": "some text"}])
    assert run(tmp_path / "absent", "--suite", suite) == 2
    assert "no such directory" in capsys.readouterr().err
    (dual.parent / "broken").mkdir()
    (dual.parent / "broken" / "config.json").write_text((dual / "config.json").read_text())
    assert run(dual.parent / "broken", "--suite", suite) == 2
    assert run("http://127.0.0.1:9", "--suite", suite) == 2
    assert "no answer of a `cllm serve` there" in capsys.readouterr().err
