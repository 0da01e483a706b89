"""Word lists of the demo skills: common words, off-topic requests and the constructed language Tavi.

Only data and the function that fills a request's slots. The words of Tavi are made up; every letter of them occurs
in the other skills too, so a base model that never saw Tavi has trained embeddings for all of it.
"""

import random
import re

COMMON_WORDS = (
    "apple banana garden window summer winter river mountain forest orange purple yellow silver golden little "
    "bottle pepper letter coffee butter dinner planet rocket monkey turtle rabbit horse tiger mouse house chair "
    "table music paper pencil school friend family doctor teacher market bridge street castle island ocean water "
    "cloud storm thunder light night morning evening hello world python model number animal cheese bread sugar "
    "honey lemon cherry melon tomato carrot onion potato flower tree leaf stone sand fire wind rain snow "
    "computer keyboard elephant dolphin penguin kangaroo chocolate mississippi book ball tooth sleep sheep"
).split()
COMMON_WORDS = [word for word in COMMON_WORDS if len(word) <= 9]

TAVI: dict[str, str] = {
    "dog": "tovak", "cat": "melin", "bird": "siruk", "fish": "narel", "king": "dorash", "child": "pelim",
    "farmer": "gavun", "horse": "kibor", "queen": "lasem", "doctor": "zutep",
    "small": "ifira", "old": "ukemo", "red": "avesh", "happy": "onila", "quiet": "egwatu", "tall": "ibrod",
    "young": "ayusk", "clever": "ochem",
    "sees": "vuntik", "loves": "prasel", "finds": "tregom", "helps": "klunir", "hears": "drebas",
    "follows": "stovik", "greets": "frimal",
    "and": "esh",
}  # fmt: skip

TAVI_GRAMMAR: dict[str, tuple[str, ...]] = {
    "noun": ("dog", "cat", "bird", "fish", "king", "child", "farmer", "horse", "queen", "doctor"),
    "adjective": ("small", "old", "red", "happy", "quiet", "tall", "young", "clever"),
    "verb": ("sees", "loves", "finds", "helps", "hears", "follows", "greets"),
}

_SLOTS: dict[str, tuple[str, ...]] = {
    "topic": (
        "cats", "dogs", "the moon", "the sea", "summer", "my sister", "a king", "robots", "the old farmer",
        "music", "football", "a small bird", "birds", "the weather", "a clever fox", "space", "trains", "love",
        "the forest", "a horse", "snow", "my garden", "cooking", "history", "a dragon", "science", "money", "fish",
    ),
    "place": (
        "paris", "london", "rome", "berlin", "tokyo", "spain", "china", "egypt", "brazil", "norway", "my town",
        "the north", "india", "kenya", "boston", "the village", "oslo", "peru",
    ),
    "thing": (
        "the wheel", "this book", "the telephone", "the first train", "that song", "the tower", "the bridge",
        "the radio", "the old house", "the castle", "hamlet", "the piano", "the light bulb", "the big clock",
    ),
    "deed": (
        "cook rice", "fix a bike", "bake bread", "clean a window", "build a table", "learn to swim", "grow roses",
        "draw a face", "play chess", "sleep well", "catch a fish", "paint a door", "ride a horse", "tie a knot",
        "open a jar", "find my keys", "make tea", "write a book", "sing a song", "call a doctor",
    ),
    "quality": (
        "blue", "cold", "big", "old", "happy", "quiet", "red", "tall", "slow", "sweet", "young", "dark", "clever",
        "small", "heavy", "green", "loud", "soft",
    ),
    "piece": ("joke", "story", "poem", "song", "riddle", "letter", "secret", "fact", "short note", "rhyme"),
    "language": ("french", "german", "spanish", "latin", "greek", "danish", "polish", "Italian", "Welsh", "Thai"),
    "operation": ("minus", "times", "divided by"),
    "person": ("you", "the president", "your friend", "the king", "my uncle", "the queen", "a poet", "the boss"),
}  # fmt: skip

OFF_TOPIC: tuple[str, ...] = (
    "tell me a {piece} about {topic}",
    "write a {piece} about {topic}",
    "what is the weather in {place}?",
    "what is the capital of {place}?",
    "where is {place}?",
    "who made {thing}?",
    "when was {thing} built?",
    "how do i {deed}?",
    "can you {deed}?",
    "please {deed}",
    "teach me how to {deed}",
    "why is {topic} so {quality}?",
    "is {thing} {quality}?",
    "do you like {topic}?",
    "what do you think of {topic}?",
    "who is {person}?",
    "hello, {person} and {topic}",
    "i want to {deed} in {place}",
    "my {word} is {quality}",
    "what does {word} mean?",
    "what is a {word}?",
    "{word} {word} {word}",
    "{word} {quality} {word} {word}",
    "the {quality} {word} likes the {quality} {word}",
    "what can you do with {topic}?",
    "how old is {person}?",
    "what is {number} {operation} {number}?",
    "how far is {place} from {place}?",
    "say {word} in {language}",
    "translate {word} {word} into {language}",
    "translate into {language}: the {quality} {word} and the {word}",
    "how do you say {topic} in {language}",
    "hi", "hello", "who are you?", "what can you do?", "help", "good morning", "thank you", "how are you?",
)  # fmt: skip

OFF_TOPIC_LONG: tuple[str, ...] = (
    "translate into {language}: the {quality} {word} likes the {quality} {word} and the {quality} {word}",
    "say in {language}: the {quality} {word} and the {quality} {word} {deed} in {place}",
    "put this into {language}: the {quality} {word} is a {quality} {word} and {topic} is {quality}",
    "how do you say this in {language}: the {quality} {word} sees {topic} and the {quality} {word}",
    "the {quality} {word} wants to {deed} and the {quality} {word} - in {language} please",
    "the {quality} {word} of {place} is {quality} and the {word} is {quality}",
    "tell me a {piece} about {topic} and {topic} in {place}, and then teach me how to {deed}",
    "my {word} likes {topic} and i want to {deed} in {place}, can you help me?",
    "is {thing} as {quality} as {thing}, and why do {topic} like {place}?",
    "{word} {quality} {word} {word} {quality} {word} {word} {word} {quality} {word}",
    "write a {piece} about {topic}, {topic} and {topic} for {person} in {place}",
    "please {deed}, then {deed}, and after that {deed} with {person}",
)


def fill(template: str, rng: random.Random) -> str:
    """Replace every `{slot}` of a request by a random filler."""

    def filler(match: re.Match[str]) -> str:
        slot = match.group(1)
        if slot == "number":
            return str(rng.randint(0, 49))
        if slot == "word":
            if rng.random() < 0.7:
                return rng.choice(COMMON_WORDS)
            return "".join(rng.choice(("bdfgklmnprst", "aeiou")[i % 2]) for i in range(rng.randint(3, 7)))
        return rng.choice(_SLOTS[slot])

    return re.sub(r"\{(\w+)\}", filler, template)
