"""Which tokens of a conversation are the assistant's: against TRL's marked templates, and refused where unclear."""

import pytest
from transformers import PreTrainedTokenizerFast

from tests.training.chat_tokenizers import CHATML, FORGETS_THOUGHTS, shipped, tokenizer
from training.data import DataError
from training.data.template import Rendered, render, render_whole, teaches_to_stop

CHAT = [
    {"role": "system", "content": "be kind"},
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "hello"},
    {"role": "user", "content": "bye"},
    {"role": "assistant", "content": "farewell"},
]


def learned(made: PreTrainedTokenizerFast, row: Rendered) -> list[str]:
    return [made.decode(row.ids[start:stop]) for start, stop in row.spans]


def test_prefixes_give_what_the_marks_of_a_marked_template_give() -> None:
    plain, marked = tokenizer(shipped("llama3")), tokenizer(shipped("llama3_training"))
    [by_prefixes], [by_marks] = render(plain, CHAT, 0, "f:1"), render(marked, CHAT, 0, "f:1")
    assert by_prefixes == by_marks
    reference = marked.apply_chat_template(CHAT, return_assistant_tokens_mask=True)
    mask = [any(start <= i < stop for start, stop in by_prefixes.spans) for i in range(len(by_prefixes.ids))]
    assert mask == [bool(bit) for bit in reference["assistant_masks"]]
    assert by_prefixes.ids == reference["input_ids"]
    assert learned(plain, by_prefixes) == ["hello<|eot_id|>", "farewell<|eot_id|>"]


@pytest.mark.parametrize("template", ["llama3", "llama3_training"])
def test_messages_before_the_first_to_be_learned_are_not(template: str) -> None:
    made = tokenizer(shipped(template))
    [row] = render(made, CHAT, 3, "f:1")
    assert learned(made, row) == ["farewell<|eot_id|>"]


@pytest.mark.parametrize("template", [FORGETS_THOUGHTS, shipped("qwen3")])
def test_a_template_that_renders_history_otherwise_gets_a_row_for_each_message(template: str) -> None:
    made = tokenizer(template)
    rows = render(made, CHAT, 0, "f:1")
    assert [len(row.spans) for row in rows] == [1, 1]
    for row, last in zip(rows, (2, 4), strict=True):
        # exactly what the model is given in use
        request = made.apply_chat_template(CHAT[:last], add_generation_prompt=True)["input_ids"]
        [(start, stop)] = row.spans
        assert row.ids[:start] == request and stop == len(row.ids)
    ends = [learned(made, row)[0] for row in rows]
    assert [said.startswith("<think>") for said in ends] == [True, True]
    assert ends[0].endswith("hello<|im_end|>\n") and ends[1].endswith("farewell<|im_end|>\n")
    assert "<think>" not in made.decode(rows[1].ids[: rows[1].spans[0][0]])
    assert len(render(made, CHAT, 3, "f:1")) == 1


def test_a_date_in_a_template_does_not_change_the_data() -> None:
    made = tokenizer(shipped("llama3_2"))
    [row] = render(made, CHAT, 0, "f:1")
    assert "Today Date: 26 Jul 2024" in made.decode(row.ids)


@pytest.mark.parametrize(
    ("template", "messages", "said"),
    [
        (CHATML.replace("assistant\n{% endif", "assistant\n<think>{% endif"), CHAT, "cannot be told"),
        (CHATML, CHAT[2:], "the first message is the assistant's"),
        (CHATML + "{{ raise_exception('no system, please') }}", CHAT, "refuses it: no system, please"),
        (CHATML + "{% generation %}all{% endgeneration %}", CHAT, "hold 1 messages, and the assistant wrote 2"),
    ],
)
def test_what_cannot_be_done_exactly_is_refused(template: str, messages: list[dict[str, str]], said: str) -> None:
    with pytest.raises(DataError) as caught:
        render(tokenizer(template), messages, 0, "f:7")
    assert str(caught.value).startswith("f:7: ") and said in str(caught.value)


def test_whole_conversations_can_be_refused_too() -> None:
    made = tokenizer(CHATML)
    assert made.decode(render_whole(made, CHAT[1:3], "f:7").ids).startswith("<|im_start|>user\nhi<|im_end|>")
    made.chat_template = "{{ raise_exception('no system, please') }}"
    with pytest.raises(DataError, match="f:7: the chat template refuses it: no system, please"):
        render_whole(made, CHAT, "f:7")


@pytest.mark.parametrize(("template", "stops"), [(CHATML, True), (CHATML.replace("<|im_end|>", "."), False)])
def test_whether_the_end_of_an_answer_is_learned(template: str, stops: bool) -> None:
    made = tokenizer(template)
    assert teaches_to_stop(made, render(made, CHAT, 0, "f:1")[-1]) is stops
