"""The corpus: labels, lengths, shares and order of a recipe's data, and what is refused before anything expensive."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from tests.tiny_models import write_base
from tests.training.chat_tokenizers import CHATML, shipped, tokenizer
from training.data import Corpus, DataError, describe, load, load_tokenizer, preview
from training.data.order import draw, short_first
from training.data.rows import IGNORED
from training.recipe import Data


def write(path: Path, records: list[Any]) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def texts(directory: Path, name: str, lengths: list[int]) -> str:
    """A file of texts of so many characters; with the end token a row is one longer."""
    return write(directory / name, [{"text": chr(97 + i % 26) * length} for i, length in enumerate(lengths)])


def corpus(directory: Path, template: str | None = CHATML, **section: Any) -> Corpus:
    return load(Data.model_validate(section), tokenizer(template), context=64, cache=directory / "cache")


def learned(row: dict[str, Any]) -> str:
    """What is learned of a row, with one dot for each stretch that is not."""
    made = tokenizer(None)
    tokens = ["." if label == IGNORED else made.decode([label]) for label in row["labels"]]
    return "".join(token for i, token in enumerate(tokens) if token != "." or i == 0 or tokens[i - 1] != ".")


def chat(*said: str) -> dict[str, Any]:
    return {"messages": [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(said)]}


@pytest.mark.parametrize(
    ("record", "only_completion", "everything"),
    [
        (chat("q", "a", "r", "b"), ".a<|im_end|>\n.b<|im_end|>\n", None),
        ({"prompt": "2+2=", "completion": "4"}, ".4<|end|>", "2+2=4<|end|>"),
        ({"text": "once"}, "once<|end|>", "once<|end|>"),
        (
            {"prompt": [*chat("q", "a", "r")["messages"]], "completion": chat("q", "b")["messages"][1:]},
            ".b<|im_end|>\n",
            None,
        ),
    ],
)
def test_what_is_learned(tmp_path: Path, record: Any, only_completion: str, everything: str | None) -> None:
    sources = [{"path": write(tmp_path / "a.jsonl", [record])}]
    [row] = corpus(tmp_path, sources=sources).rows(1, 1, seed=0)
    assert learned(row) == only_completion
    assert all(label in (IGNORED, token) for label, token in zip(row["labels"], row["input_ids"], strict=True))
    [row] = corpus(tmp_path, sources=sources, learn="all").rows(1, 1, seed=0)
    assert row["labels"] == row["input_ids"]
    if everything is not None:
        assert learned(row) == everything


def test_a_completion_never_shares_a_token_with_its_prompt(tmp_path: Path) -> None:
    """`ab` is one token of this vocabulary: in use the prompt `a` is tokenized alone."""
    made = tokenizer(None)
    made.add_tokens(["ab"])
    path = write(tmp_path / "a.jsonl", [{"prompt": "xa", "completion": "bc"}])
    [row] = load(Data.model_validate({"sources": [{"path": path}]}), made, 64, tmp_path / "cache").rows(1, 1, seed=0)
    assert made.convert_ids_to_tokens(row["input_ids"]) == ["x", "a", "b", "c", "<|end|>"]
    assert row["labels"][:3] == [IGNORED, IGNORED, row["input_ids"][2]]


def test_turns_in_rows_of_their_own_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [chat("q", "a", "r", "b"), chat("q", "a")])
    [facts] = corpus(tmp_path, shipped("qwen3"), sources=[{"path": path}], max_length=64).facts
    assert (facts.examples, facts.rows) == (2, 3)


@pytest.mark.parametrize(
    ("overlong", "lengths", "said"),
    [
        ("truncate", [4, 10, 10, 10], "2 too long: truncated"),
        ("drop", [4, 10], "2 too long: dropped"),
        ("split", [4, 10, 10, 2, 10, 10, 5], "2 too long: split into pieces"),
    ],
)
def test_overlong_documents_are_treated_and_counted(
    tmp_path: Path, overlong: str, lengths: list[int], said: str
) -> None:
    path = texts(tmp_path, "a.jsonl", [3, 9, 11, 24])
    made = corpus(tmp_path, sources=[{"path": path}], max_length=10, overlong=overlong)
    rows = made.rows(len(lengths), 1, seed=0)
    assert sorted(len(row["input_ids"]) for row in rows) == sorted(lengths)
    [facts] = made.facts
    assert said in describe(facts)
    assert (facts.overlong, facts.rows, facts.tokens) == (2, len(lengths), sum(lengths))
    if overlong == "split":
        assert sorted("".join(tokenizer(None).decode(row["input_ids"]) for row in rows)) == sorted(
            "".join(chr(97 + i) * length + "<|end|>" for i, length in enumerate([3, 9, 11, 24]))
        )


def test_rows_without_anything_to_learn_are_left_out_and_counted(tmp_path: Path) -> None:
    records = [
        {"prompt": "x" * 12, "completion": "lost"},
        {"prompt": "x", "completion": ""},
        {"prompt": "x", "completion": "y"},
    ]
    made = corpus(tmp_path, sources=[{"path": write(tmp_path / "a.jsonl", records)}], max_length=10)
    assert [row["where"] for row in made.rows(1, 1, seed=0)] == [f"{tmp_path / 'a.jsonl'}:3"]
    [facts] = made.facts
    assert (facts.examples, facts.rows, facts.empty, facts.overlong) == (3, 1, 2, 1)
    assert "2 rows left out, nothing to learn in them" in describe(facts)
    with pytest.raises(DataError, match="nothing to learn from"):
        corpus(tmp_path, sources=[{"path": write(tmp_path / "b.jsonl", records[:2])}], max_length=10)


def test_shares_follow_the_weights_and_every_example_comes_before_any_comes_again() -> None:
    drawn = draw([10, 1000, 7], [0.2, 0.7, 0.1], 1000, seed=3)
    sources = np.searchsorted([10, 1010, 1017], drawn, side="right")
    # Four standard deviations of a binomial draw are .051 and .038.
    assert np.bincount(sources) / 1000 == pytest.approx([0.2, 0.7, 0.1], abs=0.06)
    assert len(set(drawn[sources == 1])) == np.sum(sources == 1)
    first = drawn[sources == 0]
    passes = [tuple(first[start : start + 10]) for start in range(0, len(first) - 9, 10)]
    assert all(sorted(found) == list(range(10)) for found in passes)
    assert len(set(passes)) == len(passes) > 10


def test_an_order_is_its_seeds_and_a_longer_one_begins_with_it() -> None:
    sizes, weights = [5, 9], [1.0, 2.0]
    assert draw(sizes, weights, 40, seed=1).tolist() == draw(sizes, weights, 90, seed=1)[:40].tolist()
    assert draw(sizes, weights, 40, seed=1).tolist() != draw(sizes, weights, 40, seed=2).tolist()


def test_updates_keep_their_examples_and_are_ordered_by_length() -> None:
    lengths = np.random.default_rng(0).integers(1, 99, 30)
    drawn = np.random.default_rng(1).permutation(30)
    ordered = short_first(drawn, lengths, 8)
    for start in range(0, 30, 8):
        update = ordered[start : start + 8]
        assert sorted(update) == sorted(drawn[start : start + 8])
        assert lengths[update].tolist() == sorted(lengths[update])


@pytest.mark.parametrize("packing", [False, True])
def test_rows_are_the_same_for_a_seed_and_from_another_cache(tmp_path: Path, packing: bool) -> None:
    sources = [
        {"path": texts(tmp_path, "new.jsonl", [3, 17, 5, 9, 8]), "weight": 0.9},
        {"path": texts(tmp_path, "old.jsonl", [11, 2]), "weight": 0.1},
    ]
    made = [
        corpus(directory, sources=sources, packing=packing, max_length=20) for directory in (tmp_path, tmp_path / "2")
    ]
    found = [each.rows(40, 4, seed=seed).to_list() for each in made for seed in (0, 1)]
    drop_where = [[{k: v for k, v in row.items() if k != "where"} for row in rows] for rows in found]
    assert drop_where[0] == drop_where[2] != drop_where[1] == drop_where[3]
    assert len(found[0]) == 40
    assert [facts.share for facts in made[0].facts] == pytest.approx([0.9, 0.1])
    if not packing:
        lengths = [len(row["input_ids"]) for row in found[0]]
        assert all(lengths[i : i + 4] == sorted(lengths[i : i + 4]) for i in range(0, 40, 4))
        replayed = sum("old.jsonl" in row["where"] for row in found[0])
        assert made[0].passes(40, seed=0) == [(40 - replayed) / 5, replayed / 2]


def test_rows_are_encoded_anew_when_the_tokenizer_changes(tmp_path: Path) -> None:
    sources = [{"path": write(tmp_path / "a.jsonl", [chat("q", "a")])}]
    [one], [other] = (
        corpus(tmp_path, template, sources=sources).rows(1, 1, seed=0) for template in (CHATML, shipped("llama3"))
    )
    assert learned(one) == ".a<|im_end|>\n" and learned(other) == ".a<|eot_id|>"


def test_packed_rows_are_full_and_mixed(tmp_path: Path) -> None:
    path = texts(tmp_path, "a.jsonl", [int(n) for n in np.random.default_rng(0).integers(1, 12, 300)])
    rows = corpus(tmp_path, sources=[{"path": path}], packing=True, max_length=32).rows(50, 1, seed=0)
    filled = [len(row["input_ids"]) for row in rows]
    assert max(filled) <= 32 and sum(filled) / (50 * 32) > 0.97
    longest = [max(row["seq_lengths"]) for row in rows]
    assert longest != sorted(longest, reverse=True)


def test_workers_give_the_same_rows(tmp_path: Path) -> None:
    sources = [{"path": write(tmp_path / "a.jsonl", [chat(f"q{i}", f"a{i}") for i in range(20)])}]
    one, two = (corpus(tmp_path / str(n), sources=sources, workers=n).rows(20, 4, seed=0) for n in (1, 2))
    assert one.to_list() == two.to_list()


def test_a_preview_shows_what_is_learned(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [chat("q", "a", "r", "b")])
    rows = corpus(tmp_path, sources=[{"path": path}]).rows(3, 1, seed=0)
    [shown] = preview(rows, tokenizer(CHATML), 1)
    head, *text = shown.replace("\x1b[1m", "").split("\n")
    assert head.startswith(f"row 1: 46 tokens, 6 learned, {path}:1")
    assert "\x1b[32m⟦a<|im_end|>\n⟧\x1b[0m" in "\n".join(text)


def test_a_preview_of_packed_rows_shows_each_document(tmp_path: Path) -> None:
    path = texts(tmp_path, "a.jsonl", [3, 4])
    rows = corpus(tmp_path, sources=[{"path": path}], packing=True, max_length=9).rows(1, 1, seed=0)
    [shown] = preview(rows, tokenizer(None), 1)
    assert "2 documents" in shown
    assert sorted(line.count("⟦") for line in shown.split("\n")) == [0, 1, 1]
    assert "a\x1b[0m\x1b[32m⟦aa<|end|>⟧" in shown and "b\x1b[0m\x1b[32m⟦bbb<|end|>⟧" in shown


def test_a_chat_needs_a_template(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [chat("q", "a")])
    with pytest.raises(DataError, match="sources.1: a.jsonl holds conversations, and the base's tokenizer has no chat"):
        corpus(tmp_path, None, sources=[{"path": texts(tmp_path, "b.jsonl", [3])}, {"path": path}])


def test_a_bad_source_is_found_before_another_is_read(tmp_path: Path) -> None:
    good, bad = texts(tmp_path, "a.jsonl", [3]), write(tmp_path / "b.jsonl", [{"question": "x"}])
    with pytest.raises(DataError, match=r"data.sources.1: .*b.jsonl:1: fields question: of no known format"):
        corpus(tmp_path, sources=[{"path": good}, {"path": bad}])
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"max_length": 65}, "data.max_length = 65: the base model's context is 64 tokens"),
        ({"overlong": "split"}, r"pieces of a.jsonl \(chat\) would lose their prompt"),
    ],
)
def test_settings_that_do_not_fit(tmp_path: Path, section: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        corpus(tmp_path, sources=[{"path": write(tmp_path / "a.jsonl", [chat("q", "a")])}], **section)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"sources": []}, "at least 1 item"),
        ({"sources": [{}]}, "one of `path` .* and `hub`"),
        ({"sources": [{"path": "a", "hub": "b/c"}]}, "one of `path` .* and `hub`"),
        ({"sources": [{"path": "a", "split": "train"}]}, "`split` goes with `hub`"),
        ({"sources": [{"path": "a", "weight": 0}]}, "greater than 0"),
        ({"sources": [{"path": "a", "format": "csv"}]}, "'auto', 'text'|literal"),
        ({"sources": [{"hub": "https://a/b"}]}, "match pattern"),
        ({"sources": [{"path": "a"}], "pack": True}, "Extra inputs"),
        ({"sources": [{"path": "a"}], "overlong": "keep"}, "'truncate', 'drop' or 'split'"),
    ],
)
def test_sections_that_are_refused(section: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Data.model_validate(section)


def test_a_base_without_a_tokenizer_or_with_another_template(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    template = tmp_path / "chat.jinja"
    template.write_text(CHATML)
    assert load_tokenizer(base, None).chat_template != CHATML
    assert load_tokenizer(base, template).chat_template == CHATML
    with pytest.raises(DataError, match="data.chat_template = '.*none.jinja'"):
        load_tokenizer(base, tmp_path / "none.jinja")
    settings = json.loads((base / "tokenizer_config.json").read_text())
    (base / "tokenizer_config.json").write_text(json.dumps({k: v for k, v in settings.items() if k != "eos_token"}))
    with pytest.raises(DataError, match="has no eos_token"):
        load_tokenizer(base, None)
    for file in base.glob("*token*"):
        file.unlink()
    with pytest.raises(DataError, match="no tokenizer in it"):
        load_tokenizer(base, None)
