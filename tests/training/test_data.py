"""Requests with one answer: JSONL files with clear errors, labels on answers only, updates that hold every length."""

import json
from pathlib import Path

import pytest

from training import data
from training.recipe import FileSkill
from training.tokenizer import character_tokenizer

GOOD = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "not JSON"),
        ("[]", "expected one JSON object a line"),
        ('{"text": "x"}', "the assistant's answer at its end"),
        ('{"messages": [{"role": "user", "content": "x"}]}', "no message of the assistant"),
        (
            '{"messages": [{"role": "user", "content": 3}, {"role": "assistant", "content": "x"}]}',
            "messages[0].content",
        ),
        ('{"messages": [{"role": "cat", "content": "x"}, {"role": "assistant", "content": "x"}]}', "role = 'cat'"),
        (
            '{"messages": [{"role": "assistant", "content": "x"}, {"role": "user", "content": "x"}]}',
            "answer at its end",
        ),
    ],
)
def test_errors_name_file_line_and_field(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "chats.jsonl"
    path.write_text(json.dumps(GOOD) + "\n\n" + line + "\n")
    with pytest.raises(data.DataError) as caught:
        data.read_jsonl(path)
    assert f"{path}:3" in str(caught.value)
    assert said in str(caught.value)


def test_missing_and_empty_files(tmp_path: Path) -> None:
    with pytest.raises(data.DataError, match="No such file"):
        data.read_jsonl(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(data.DataError, match="no conversation"):
        data.read_jsonl(tmp_path / "empty.jsonl")


def test_file_skill(tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl"
    path.write_text("\n".join([json.dumps(GOOD)] * 3))
    source = FileSkill(name="hello", train=path, test=path)
    assert data.held_out(source, "test", 2, 0)[0].answer == "hello"
    with pytest.raises(data.DataError, match="no validation file"):
        data.held_out(source, "validation", 2, 0)


def test_labels_cover_the_answer_and_its_end() -> None:
    tokenizer = character_tokenizer(64)
    item = data.Chat(({"role": "user", "content": "ab"},), "xyz")
    row = data.encode(tokenizer, item)
    assert tokenizer.decode(row["input_ids"]) == "<|user|>ab<|assistant|>xyz<|end|>"
    assert row["labels"] == [data.IGNORED] * 4 + row["input_ids"][4:]
    assert data.encode(tokenizer, item, learn_prompt=True)["labels"] == row["input_ids"]


def test_updates_keep_their_examples_and_are_ordered_by_length() -> None:
    tokenizer = character_tokenizer(64)
    chats = data.mixture({"add": 1, "count": 1}, 32, seed=0)
    rows = data.dataset(tokenizer, chats, batch_size=8)
    lengths = [len(ids) for ids in rows["input_ids"]]
    for start in range(0, 32, 8):
        update = lengths[start : start + 8]
        assert update == sorted(update)
        assert sorted(update) == sorted(len(c.prompt) + len(c.answer) + 3 for c in chats[start : start + 8])


def test_prompt_share() -> None:
    tokenizer = character_tokenizer(64)
    chats = data.mixture({"add": 1}, 400, seed=0)
    rows = data.dataset(tokenizer, chats, batch_size=8, prompt_share=0.3, seed=0)
    learned = sum(labels[0] != data.IGNORED for labels in rows["labels"])
    assert 80 < learned < 160


def test_learned_requests_are_of_every_skill() -> None:
    tokenizer = character_tokenizer(64)
    chats = data.mixture({"compare": 1, "capitals": 1}, 400, seed=0)
    rows = data.dataset(tokenizer, chats, batch_size=1, prompt_share=0.3, seed=0)
    learned = [c.answer.isupper() for c, labels in zip(chats, rows["labels"], strict=True) if labels[0] != data.IGNORED]
    assert 0.3 < sum(learned) / len(learned) < 0.7


def test_a_skill_of_weight_zero_leaves_the_others_as_they_were() -> None:
    weights = {"add": 1.0, "compare": 2.0}
    assert data.mixture(weights, 200, seed=3) == data.mixture({**weights, "smalltalk": 0}, 200, seed=3)
