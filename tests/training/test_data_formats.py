"""Record formats: told apart by their fields, turned into one kind of example, refused with the field's name."""

from typing import Any

import pytest

from training.data.formats import FORMATS, DataError, detect, parse

TURNS = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
RECORDS: dict[str, dict[str, Any]] = {
    "text": {"text": "once"},
    "chat": {"messages": TURNS, "id": 3},
    "sharegpt": {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]},
    "prompt_completion": {"prompt": "2+2=", "completion": "4"},
    "alpaca": {"instruction": "add", "input": "2, 2", "output": "4"},
}


def test_every_format_is_told_by_its_fields() -> None:
    assert {name: detect(record, "f:1") for name, record in RECORDS.items()} == {name: name for name in FORMATS}


@pytest.mark.parametrize(
    ("name", "messages", "prompt", "completion"),
    [
        ("text", [], "", "once"),
        ("chat", TURNS, "", ""),
        ("sharegpt", TURNS, "", ""),
        ("prompt_completion", [], "2+2=", "4"),
        ("alpaca", [{"role": "user", "content": "add\n\n2, 2"}, {"role": "assistant", "content": "4"}], "", ""),
    ],
)
def test_what_records_become(name: Any, messages: list[dict[str, str]], prompt: str, completion: str) -> None:
    assert parse(RECORDS[name], name, "f:1") == {
        "where": "f:1",
        "messages": messages,
        "first": 0,
        "prompt": prompt,
        "completion": completion,
    }


def test_alpaca_without_input() -> None:
    record = {"instruction": "greet", "input": "", "output": "hello"}
    assert parse(record, "alpaca", "f:1")["messages"][0]["content"] == "greet"


def test_prompts_and_completions_of_messages_learn_the_completion_only() -> None:
    record = {"prompt": TURNS + TURNS[:1], "completion": TURNS[1:]}
    assert detect(record, "f:1") == "prompt_completion"
    example = parse(record, "prompt_completion", "f:1")
    assert (example["messages"], example["first"]) == (TURNS + TURNS, 3)


def test_a_rendered_text_beside_other_fields_gives_way() -> None:
    assert detect(RECORDS["alpaca"] | {"text": "Below is an instruction …"}, "f:1") == "alpaca"


def test_nulls_of_other_records_do_not_count_as_fields() -> None:
    assert detect(RECORDS["chat"] | {"text": None, "prompt": None, "completion": None}, "f:1") == "chat"


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"question": "x", "answer": "y"}, "fields question, answer: of no known format. Known: chat (messages)"),
        (RECORDS["chat"] | RECORDS["alpaca"], "fit chat, alpaca; name the source's `format`"),
        ([RECORDS["chat"]], "expected one JSON object a line, found list"),
    ],
)
def test_records_that_tell_no_format(record: object, said: str) -> None:
    with pytest.raises(DataError) as caught:
        detect(record, "f:7")
    assert str(caught.value).startswith("f:7: ") and said in str(caught.value)


@pytest.mark.parametrize(
    ("name", "record", "said"),
    [
        ("chat", {"text": "x"}, "no messages, found text; all records of a source are of one format, here 'chat'"),
        ("chat", 5, "expected an object with messages, found int 5"),
        ("chat", {"messages": []}, "messages: expected a list of messages, found list []"),
        ("chat", {"messages": ["hi"]}, "messages[0]: expected an object with role and content"),
        ("chat", {"messages": TURNS[:1]}, "no message of the assistant"),
        ("chat", {"messages": [{"role": "user"}, TURNS[1]]}, "messages[0].content: expected text, found nothing"),
        ("chat", {"messages": [{"role": "tool", "content": "3"}]}, "messages[0].role = 'tool': expected system, user"),
        ("chat", {"messages": [TURNS[0], TURNS[1] | {"tool_calls": [{}]}]}, "messages[1].tool_calls: not supported"),
        ("chat", {"messages": TURNS, "tools": [{}]}, "tools: not supported"),
        ("sharegpt", {"conversations": [{"from": "bing", "value": "x"}]}, "conversations[0].from = 'bing'"),
        ("alpaca", {"instruction": "x", "output": 4}, "output: expected text, found int 4"),
        ("prompt_completion", {"prompt": TURNS, "completion": "x"}, "completion: expected a list of messages"),
        ("prompt_completion", {"prompt": TURNS, "completion": TURNS[:1]}, "no message of the assistant"),
        ("text", {"text": ["x"]}, "text: expected text, found list ['x']"),
    ],
)
def test_records_that_are_refused(name: Any, record: object, said: str) -> None:
    with pytest.raises(DataError) as caught:
        parse(record, name, "f:7")
    assert str(caught.value).startswith("f:7: ") and said in str(caught.value)
