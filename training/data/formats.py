"""The record formats that people keep training data in, told apart by their fields, as one kind of example.

| format | fields |
|---|---|
| text | `text` |
| chat | `messages`: a list of `{role, content}` |
| sharegpt | `conversations`: a list of `{from, value}` |
| prompt_completion | `prompt` and `completion`: two texts, or two lists of messages |
| alpaca | `instruction`, `output`, and where there is one `input` |

Conversations (chat, sharegpt, alpaca, lists of messages) are rendered by the tokenizer's chat template later; texts are
taken as they are. Knows nothing of files or tokenizers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from training.recipe.data import FormatName

Record = Mapping[str, Any]
Message = dict[str, str]


class DataError(ValueError):
    """Data that cannot be used; the message names the file, line and field."""


class Example(TypedDict):
    """One training example, from any format.

    Attributes:
        where: File and line, for messages.
        messages: A conversation, empty where the example is plain text.
        first: Index of the first message that may be learned.
        prompt: The text before what is learned, empty in a conversation.
        completion: The text that is learned, empty in a conversation.
    """

    where: str
    messages: list[Message]
    first: int
    prompt: str
    completion: str


@dataclass(frozen=True)
class Format:
    """A record format: the fields that every record has, those it may have, and what they make."""

    fields: tuple[str, ...]
    parse: Callable[[Record, str], Example]
    optional: tuple[str, ...] = ()


_ROLES = {"system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant"}
# These change what a template renders: left out, the model would learn something else than the data says.
_UNSUPPORTED = ("tool_calls", "function_call", "reasoning_content")


def parse(record: object, name: FormatName, where: str) -> Example:
    """Return a record as an example.

    Raises:
        DataError: It is not of the format `name`, or has a field of the wrong kind; names `where` and the field.
    """
    form = FORMATS[name]
    if not isinstance(record, Mapping):
        raise DataError(f"{where}: expected an object with {_list(form.fields)}, found {_kind(record)}")
    if missing := [field for field in form.fields if record.get(field) is None]:
        raise DataError(
            f"{where}: no {_list(missing)}, found {_list(present(record))}; all records of a source are of one format, "
            f"here {name!r} (its `format`, or told by its first record)"
        )
    if record.get("tools") is not None:
        raise DataError(f"{where}: tools: not supported, messages are text")
    return form.parse(record, where)


def detect(record: object, where: str) -> FormatName:
    """Return the format that a record's fields tell; `text` gives way to another, of which it is a rendering.

    Raises:
        DataError: No format has such fields, or more than one.
    """
    if not isinstance(record, Mapping):
        raise DataError(f"{where}: expected one JSON object a line, found {_kind(record)}")
    fields = present(record)
    found: list[FormatName] = [name for name, form in FORMATS.items() if set(form.fields) <= set(fields)]
    if len(found) > 1 and "text" in found:
        found.remove("text")
    if not found:
        known = "; ".join(f"{name} ({_list(form.fields)})" for name, form in FORMATS.items())
        raise DataError(f"{where}: fields {_list(fields)}: of no known format. Known: {known}")
    if len(found) > 1:
        raise DataError(f"{where}: fields {_list(fields)}: fit {_list(found)}; name the source's `format`")
    return found[0]


def present(record: Record) -> list[str]:
    """Fields with a value: Parquet and Arrow fill in null where a record has none."""
    return [field for field, value in record.items() if value is not None]


def _text(record: Record, where: str) -> Example:
    return _plain(where, "", _string(record["text"], f"{where}: text"))


def _chat(record: Record, where: str) -> Example:
    return _conversation(where, _messages(record["messages"], f"{where}: messages"))


def _sharegpt(record: Record, where: str) -> Example:
    return _conversation(where, _messages(record["conversations"], f"{where}: conversations"))


def _prompt_completion(record: Record, where: str) -> Example:
    prompt, completion = record["prompt"], record["completion"]
    if isinstance(prompt, list):
        context = _messages(prompt, f"{where}: prompt")
        return _conversation(where, context + _messages(completion, f"{where}: completion"), len(context))
    return _plain(where, _string(prompt, f"{where}: prompt"), _string(completion, f"{where}: completion"))


def _alpaca(record: Record, where: str) -> Example:
    request = _string(record["instruction"], f"{where}: instruction")
    if record.get("input"):
        request = f"{request}\n\n{_string(record['input'], f'{where}: input')}"
    answer = _string(record["output"], f"{where}: output")
    return _conversation(where, [{"role": "user", "content": request}, {"role": "assistant", "content": answer}])


FORMATS: dict[FormatName, Format] = {
    "chat": Format(("messages",), _chat),
    "sharegpt": Format(("conversations",), _sharegpt),
    "prompt_completion": Format(("prompt", "completion"), _prompt_completion),
    "alpaca": Format(("instruction", "output"), _alpaca, optional=("input",)),
    "text": Format(("text",), _text),
}


def _plain(where: str, prompt: str, completion: str) -> Example:
    return {"where": where, "messages": [], "first": 0, "prompt": prompt, "completion": completion}


def _conversation(where: str, messages: list[Message], first: int = 0) -> Example:
    if not any(message["role"] == "assistant" for message in messages[first:]):
        raise DataError(f"{where}: no message of the assistant, so there is nothing to learn")
    return {"where": where, "messages": messages, "first": first, "prompt": "", "completion": ""}


def _messages(value: object, field: str) -> list[Message]:
    if not isinstance(value, list) or not value:
        raise DataError(f"{field}: expected a list of messages, found {_kind(value)}")
    return [_message(message, f"{field}[{index}]") for index, message in enumerate(value)]


def _message(value: object, field: str) -> Message:
    if not isinstance(value, Mapping):
        raise DataError(f"{field}: expected an object with role and content, found {_kind(value)}")
    speaker, said = ("from", "value") if "from" in value else ("role", "content")
    role = value.get(speaker)
    if role not in _ROLES:
        raise DataError(f"{field}.{speaker} = {role!r}: expected {_list(list(_ROLES))}")
    for name in _UNSUPPORTED:
        if value.get(name) is not None:
            raise DataError(f"{field}.{name}: not supported, messages are text")
    return {"role": _ROLES[role], "content": _string(value.get(said), f"{field}.{said}")}


def _string(value: object, field: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"{field}: expected text, found {_kind(value)}")
    return value


def _kind(value: object) -> str:
    return "nothing" if value is None else f"{type(value).__name__} {value!r:.40}"


def _list(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
