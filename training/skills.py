"""Seeded generators of the demo model's skills: short chat requests in several wordings, with exact answers.

A skill draws a *content* (the word, the numbers, the sentence) and puts it into one of its wordings. The split
of an example is decided by a hash of its content, so a test content is never trained on, in any wording.
This module knows nothing of tokenizers or models; the same seed always gives the same examples.
"""

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from training.vocabulary import COMMON_WORDS, OFF_TOPIC, OFF_TOPIC_LONG, TAVI, TAVI_GRAMMAR, fill

Split = Literal["train", "validation", "test"]
Content = tuple[str, ...]

_PATIENCE = 500
"""Draws without a new prompt after which a split counts as exhausted."""

HELP = "I can reverse a word, add, compare, write capitals, count a letter and count from a to b."


@dataclass(frozen=True)
class Example:
    """One request with its exact answer."""

    skill: str
    prompt: str
    answer: str


@dataclass(frozen=True)
class Skill:
    """One skill: `draw` makes a content, `wordings` are its phrasings, `answer` is exact.

    `key` names what must not be shared between splits: for sums and comparisons the pair, whatever its order.
    """

    name: str
    label: str
    wordings: tuple[str, ...]
    draw: Callable[[random.Random], Content]
    answer: Callable[[Content], str]
    key: Callable[[Content], Content] = lambda content: content

    def example(self, content: Content, wording: int = 0) -> Example:
        """Return `content` in wording number `wording`."""
        return Example(self.name, self.wordings[wording].format(*content), self.answer(content))


def _word(rng: random.Random) -> str:
    """A common word, a pronounceable one or just letters: people type all three."""
    kind = rng.random()
    if kind < 0.25:
        return rng.choice(COMMON_WORDS)
    length = rng.randint(3, 8)
    if kind < 0.6:
        pair = ("bcdfghjklmnpqrstvwxyz", "aeiou")
        start = rng.randint(0, 1)
        return "".join(rng.choice(pair[(start + i) % 2]) for i in range(length))
    return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(length))


def _letter_and_word(rng: random.Random) -> Content:
    """A word and a letter that is in it more often than chance would have it."""
    word = list(_word(rng))
    letter = rng.choice(word) if rng.random() < 0.8 else rng.choice("abcdefghijklmnopqrstuvwxyz")
    for _ in range(rng.choice((0, 0, 1, 2))):
        word[rng.randrange(len(word))] = letter
    return letter, "".join(word)


def _count_letter(content: Content) -> str:
    """Mark the letter in the word, then say how often it is there: `boTTle: 2`."""
    letter, word = content
    return f"{word.replace(letter, letter.upper())}: {word.count(letter)}"


def _range(rng: random.Random) -> Content:
    """Half of the ranges are long (answers of 60 characters and more); the others teach to stop at any number."""
    steps = rng.randint(20, 28) if rng.random() < 0.5 else rng.randint(1, 12)
    first = rng.randint(0, 99 - steps)
    return str(first), str(first + steps)


def _two_digits(rng: random.Random) -> Content:
    first = rng.randint(10, 99)
    # A third of the pairs share their tens, else the last digit would hardly ever decide.
    second = first // 10 * 10 + rng.randint(0, 9) if rng.random() < 0.33 else rng.randint(10, 99)
    return (str(first), str(second)) if first != second else _two_digits(rng)


def _tavi_sentence(rng: random.Random) -> Content:
    """Half of the sentences have two clauses (answers of 60 characters and more); no content word comes twice."""
    clauses = rng.randint(1, 2)
    nouns = rng.sample(TAVI_GRAMMAR["noun"], 2 * clauses)
    adjectives = rng.sample(TAVI_GRAMMAR["adjective"], 2 * clauses)
    verbs = rng.sample(TAVI_GRAMMAR["verb"], clauses)
    pairs = [f"the {adjective} {noun}" for adjective, noun in zip(adjectives, nouns, strict=True)]
    return (" and ".join(f"{pairs[2 * i]} {verb} {pairs[2 * i + 1]}" for i, verb in enumerate(verbs)),)


def translate_to_tavi(sentence: str) -> str:
    """Translate an English sentence of the fixed vocabulary: Tavi has no articles, and its verb comes last."""
    clauses = []
    for clause in sentence.split(" and "):
        words = [word for word in clause.split() if word != "the"]
        adjective, subject, verb, object_adjective, object_ = words
        clauses.append(" ".join(TAVI[w] for w in (adjective, subject, object_adjective, object_, verb)))
    return f" {TAVI['and']} ".join(clauses)


def _sorted_pair(content: Content) -> Content:
    return tuple(sorted(content, key=int))


SKILLS: dict[str, Skill] = {
    skill.name: skill
    for skill in (
        Skill(
            "reverse",
            "Reverse a word",
            (
                "reverse the word {0}",
                "reverse {0}",
                "spell {0} backwards",
                "write {0} in reverse order",
                "what is {0} spelled backwards?",
            ),
            lambda rng: (_word(rng),),
            lambda content: content[0][::-1],
        ),
        Skill(
            "add",
            "Add two numbers",
            (
                "add {0} and {1}",
                "what is {0} plus {1}?",
                "{0} + {1}",
                "what is the sum of {0} and {1}?",
                "how much is {0} + {1}?",
            ),
            lambda rng: (str(rng.randint(0, 49)), str(rng.randint(0, 49))),
            lambda content: str(int(content[0]) + int(content[1])),
            _sorted_pair,
        ),
        Skill(
            "compare",
            "Larger of two numbers",
            (
                "which is larger, {0} or {1}?",
                "pick the bigger of {0} and {1}",
                "which number is bigger: {0} or {1}?",
                "give me the larger one of {0} and {1}",
                "compare {0} and {1}",
            ),
            _two_digits,
            lambda content: max(content, key=int),
            _sorted_pair,
        ),
        Skill(
            "capitals",
            "Write in capitals",
            (
                "write {0} in capitals",
                "put {0} in capital letters",
                "capitals: {0}",
                "turn {0} into upper case",
                "make {0} upper case",
            ),
            lambda rng: (_word(rng),),
            lambda content: content[0].upper(),
        ),
        Skill(
            "letters",
            "Count a letter",
            (
                "how many times is {0} in {1}?",
                "count the letter {0} in {1}",
                "how often does {1} contain {0}?",
                "how many {0} are in {1}?",
                "in {1}, count the {0}",
            ),
            _letter_and_word,
            _count_letter,
        ),
        Skill(
            "count",
            "Count from a to b",
            (
                "count from {0} to {1}",
                "list the numbers from {0} to {1}",
                "count up from {0} to {1}",
                "write the numbers {0} to {1}",
                "start at {0} and count to {1}",
            ),
            _range,
            lambda content: " ".join(str(n) for n in range(int(content[0]), int(content[1]) + 1)),
        ),
        Skill(
            "help",
            "Anything else",
            ("{0}",),
            lambda rng: (fill(rng.choice(OFF_TOPIC), rng),),
            lambda content: HELP,
        ),
        Skill(
            "smalltalk",
            "Anything else, at length",
            ("{0}",),
            lambda rng: (fill(rng.choice(OFF_TOPIC_LONG), rng),),
            lambda content: HELP,
        ),
        Skill(
            "tavi",
            "Translate into Tavi",
            (
                "translate into Tavi: {0}",
                "say in Tavi: {0}",
                "put this into Tavi: {0}",
                "how do you say this in Tavi: {0}",
                "{0} - in Tavi please",
            ),
            _tavi_sentence,
            lambda content: translate_to_tavi(content[0]),
        ),
    )
}


def split_of(skill: Skill, content: Content) -> Split:
    """Return the split that `content` belongs to: a tenth each is for validation and test."""
    digest = hashlib.sha256("\x1f".join((skill.name, *skill.key(content))).encode()).digest()
    return ("test", "validation", *["train"] * 8)[digest[0] % 10]  # type: ignore[return-value]


def generate(name: str, split: Split, seed: int) -> Iterator[Example]:
    """Yield examples of one skill and split for ever; training examples may repeat, as contents are finite."""
    skill = SKILLS[name]
    rng = random.Random(f"{seed}/{name}/{split}")
    while True:
        content = skill.draw(rng)
        if split_of(skill, content) != split:
            continue
        example = skill.example(content, rng.randrange(len(skill.wordings)))
        yield Example(name, _restyle(example.prompt, rng), example.answer)


def _restyle(prompt: str, rng: random.Random) -> str:
    """Some people start with a capital or leave out the question mark."""
    if rng.random() < 0.3:
        prompt = prompt[0].upper() + prompt[1:]
    if rng.random() < 0.3:
        prompt = prompt.rstrip("?")
    return prompt


def unique(name: str, split: Split, count: int, seed: int) -> list[Example]:
    """Return `count` examples of one skill and split with distinct prompts.

    Raises:
        ValueError: the split holds fewer distinct prompts than asked for.
    """
    found: dict[str, Example] = {}
    repeated = 0
    for example in generate(name, split, seed):
        if len(found) == count:
            break
        repeated = repeated + 1 if example.prompt in found else 0
        if repeated > _PATIENCE:
            raise ValueError(f"evaluation prompts: skill {name!r} has no {count} distinct {split} prompts")
        found.setdefault(example.prompt, example)
    return list(found.values())
