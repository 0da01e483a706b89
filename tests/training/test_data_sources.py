"""Sources: JSONL, Parquet, directories and Hub datasets give the same examples; what is broken is named by line."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from training.data import DataError
from training.data.sources import look, read, records
from training.recipe import Source

RECORDS = [
    {"messages": [{"role": "user", "content": f"hi {i}"}, {"role": "assistant", "content": f"hello {i}"}], "id": i}
    for i in range(5)
]


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def examples(source: Source, cache: Path) -> list[dict[str, Any]]:
    return [{name: row[name] for name in row if name != "where"} for row in read(look(source), cache)]


def test_every_kind_of_source_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = write_jsonl(tmp_path / "a.jsonl", RECORDS)
    Dataset.from_list(RECORDS).to_parquet(tmp_path / "a.parquet")
    write_jsonl(tmp_path / "shards" / "0.jsonl", RECORDS[:2])
    write_jsonl(tmp_path / "shards" / "1.jsonl", RECORDS[2:])
    (tmp_path / "shards" / "README.md").write_text("not data")
    # `datasets` takes a folder of that name for the Hub's dataset.
    write_jsonl(tmp_path / "someone" / "chats" / "train.jsonl", RECORDS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hub")
    sources = [
        Source(path=lines),
        Source(path=tmp_path / "a.parquet"),
        Source(path=tmp_path / "shards"),
        Source(hub="someone/chats"),
    ]
    found = [examples(source, tmp_path / "cache") for source in sources]
    assert [row["messages"] for row in found[0]] == [record["messages"] for record in RECORDS]
    assert found[1:] == found[:1] * 3


def test_the_decision_names_format_and_unused_fields(tmp_path: Path) -> None:
    reading = look(Source(path=write_jsonl(tmp_path / "a.jsonl", RECORDS)))
    assert (reading.format, reading.is_conversation, reading.unused) == ("chat", True, ("id",))


def test_a_format_named_in_the_recipe_wins(tmp_path: Path) -> None:
    rows = [{"instruction": "x", "output": "y", "text": "x y"}]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    assert look(Source(path=path)).format == "alpaca"
    assert look(Source(path=path, format="text")).format == "text"


def test_max_examples_reads_no_further(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", RECORDS)
    path.write_text(path.read_text() + "broken\n")
    assert len(read(look(Source(path=path, max_examples=5)), tmp_path / "cache")) == 5


def test_one_line_is_enough_and_line_separators_of_unicode_end_none(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": "one\u2028line\x85 of text"}])
    assert [row["completion"] for row in read(look(Source(path=path)), tmp_path / "cache")] == [
        "one\u2028line\x85 of text"
    ]


def test_another_content_under_the_same_path_is_read_anew(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": "before"}])
    stamp = path.stat()
    assert read(look(Source(path=path)), tmp_path / "cache")[0]["completion"] == "before"
    write_jsonl(path, [{"text": "behind"}])
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert read(look(Source(path=path)), tmp_path / "cache")[0]["completion"] == "behind"


@pytest.mark.parametrize(
    ("lines", "place", "said"),
    [
        (b'{"text": "x"}\n\n{"text": "y"\n', ":3", "not JSON"),
        (b'{"text": "x"}\n{"text": "\xff"}\n', ":2", "not JSON: 'utf-8' codec"),
        (b'{"text": "x"}\n{"prompt": "x", "completion": "y"}\n', ":2", "no text, found prompt, completion; all"),
        (b'[{"text": "x"}]', ":1", "expected one JSON object a line, found list"),
        (b"", "", "no record in it"),
        (b"\n\n", "", "no record in it"),
    ],
)
def test_broken_files_are_named_by_line(tmp_path: Path, lines: bytes, place: str, said: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines)
    with pytest.raises(DataError) as caught:
        read(look(Source(path=path)), tmp_path / "cache")
    assert str(caught.value).startswith(f"{path}{place}: ") and said in str(caught.value)


def test_what_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.parquet").write_bytes(b"no parquet")
    (tmp_path / "empty").mkdir()
    write_jsonl(tmp_path / "both" / "a.jsonl", RECORDS)
    Dataset.from_list(RECORDS).to_parquet(tmp_path / "both" / "a.parquet")
    cases = {
        "none.jsonl": "No such file",
        "a.parquet": "Parquet magic bytes not found",
        "a.csv": ".csv is not one of .jsonl, .parquet",
        "empty": "a directory without .jsonl or .parquet files",
        "both": "both .jsonl and .parquet files; name one kind",
    }
    for name, said in cases.items():
        with pytest.raises(DataError, match=f"{name}: .*{said}"):
            next(records(Source(path=tmp_path / name)))
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="hub = 'someone/none'"):
        next(records(Source(hub="someone/none")))
    (tmp_path / "someone" / "broken").mkdir(parents=True)
    (tmp_path / "someone" / "broken" / "train.jsonl").write_text("{")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hub")
    with pytest.raises(DataError, match="hub = 'someone/broken'"):
        next(records(Source(hub="someone/broken")))
