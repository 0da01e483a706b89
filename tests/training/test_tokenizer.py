"""The character tokenizer: text comes back exactly, and the template renders the last request."""

from pathlib import Path

import pytest
from jinja2 import TemplateError
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from training.tokenizer import CHARACTERS, character_tokenizer


@pytest.fixture
def saved(tmp_path: Path) -> PreTrainedTokenizerBase:
    character_tokenizer(64).save_pretrained(tmp_path)
    return AutoTokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "text", ["", " ", "  two  spaces ", "a\nb\n\n", "\ttab", "don't , stop .", "".join(CHARACTERS), "A1 B2" * 50]
)
def test_text_comes_back_exactly(saved: PreTrainedTokenizerBase, text: str) -> None:
    ids = saved(text)["input_ids"]
    assert len(ids) == len(text)
    assert saved.decode(ids) == text


def test_unknown_characters_are_one_token_each(saved: PreTrainedTokenizerBase) -> None:
    assert saved("né")["input_ids"] == [*saved("n")["input_ids"], saved.unk_token_id]


def test_template_renders_from_the_last_request_on(saved: PreTrainedTokenizerBase) -> None:
    history = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "add 1 and 2"},
        {"role": "assistant", "content": "3"},
        {"role": "user", "content": "reverse abc"},
    ]
    prompt = saved.apply_chat_template(history, tokenize=False, add_generation_prompt=True)
    assert prompt == "<|user|>reverse abc<|assistant|>"
    answered = saved.apply_chat_template([*history, {"role": "assistant", "content": "cba"}], tokenize=False)
    assert answered == prompt + "cba<|end|>"
    ids = saved.apply_chat_template(history, add_generation_prompt=True)["input_ids"]
    assert len(ids) == len("reverse abc") + 2


def test_a_conversation_without_request_is_refused(saved: PreTrainedTokenizerBase) -> None:
    with pytest.raises(TemplateError, match="needs a user message"):
        saved.apply_chat_template([{"role": "system", "content": "be brief"}], tokenize=False)


def test_padding_is_on_the_left(saved: PreTrainedTokenizerBase) -> None:
    rows = saved(["ab", "abcd"], padding=True)["input_ids"]
    assert rows[0][:2] == [saved.pad_token_id] * 2
