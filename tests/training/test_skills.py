"""The demo skills: exact answers, disjoint splits, letters that the base knows."""

import itertools
import string

import pytest

from training.skills import SKILLS, generate, split_of, translate_to_tavi, unique
from training.tokenizer import CHARACTERS
from training.vocabulary import TAVI, TAVI_GRAMMAR


@pytest.mark.parametrize("name", SKILLS)
def test_splits_share_no_prompt(name: str) -> None:
    train = {example.prompt for example in itertools.islice(generate(name, "train", 0), 3000)}
    validation = {example.prompt for example in unique(name, "validation", 100, 0)}
    test = {example.prompt for example in unique(name, "test", 100, 0)}
    assert len(validation) == len(test) == 100
    assert not train & test
    assert not train & validation
    assert not validation & test


def test_sums_share_no_pair_in_any_order() -> None:
    assert split_of(SKILLS["add"], ("3", "14")) == split_of(SKILLS["add"], ("14", "3"))


def test_same_seed_same_examples() -> None:
    first, again, other = ([*itertools.islice(generate("tavi", "train", seed), 20)] for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("name", "content", "prompt", "answer"),
    [
        ("reverse", ("garden",), "reverse the word garden", "nedrag"),
        ("add", ("7", "15"), "add 7 and 15", "22"),
        ("compare", ("91", "19"), "which is larger, 91 or 19?", "91"),
        ("capitals", ("garden",), "write garden in capitals", "GARDEN"),
        ("letters", ("a", "banana"), "how many times is a in banana?", "bAnAnA: 3"),
        ("count", ("8", "12"), "count from 8 to 12", "8 9 10 11 12"),
    ],
)
def test_answers(name: str, content: tuple[str, ...], prompt: str, answer: str) -> None:
    example = SKILLS[name].example(content)
    assert (example.prompt, example.answer) == (prompt, answer)


def test_tavi_has_no_articles_and_puts_the_verb_last() -> None:
    assert translate_to_tavi("the small dog sees the red bird") == "ifira tovak avesh siruk vuntik"
    two = translate_to_tavi("the small dog sees the red bird and the old king hears the tall child")
    assert two == "ifira tovak avesh siruk vuntik esh ukemo dorash ibrod pelim drebas"
    assert len(two) >= 60


def test_tavi_words_are_distinct_and_written_in_known_letters() -> None:
    assert len(set(TAVI.values())) == len(TAVI)
    assert not set(TAVI.values()) & set(TAVI)
    assert set("".join(TAVI.values())) <= set(string.ascii_lowercase)
    assert {word for words in TAVI_GRAMMAR.values() for word in words} == set(TAVI) - {"and"}


def test_the_originals_never_speak_of_tavi() -> None:
    for name in set(SKILLS) - {"tavi"}:
        for example in itertools.islice(generate(name, "train", 0), 2000):
            assert "tavi" not in example.prompt.lower()
            assert set(example.prompt + example.answer) <= set(CHARACTERS)


def test_too_many_distinct_prompts_are_refused() -> None:
    with pytest.raises(ValueError, match="'add' has no 100000"):
        unique("add", "test", 100_000, 0)
