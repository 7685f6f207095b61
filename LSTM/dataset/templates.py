"""Sentences made by code: a controlled dataset whose answer is known, and no sum over words finds.

    "well , i would never say that the acting was really superb . i did not pay ."   negative
    "i paid . to me the plot was not exactly dull ."                                 positive

Each has a judgement, which is negated or not, and an aside, which is negated or not and means
nothing. All four cases are equally frequent with good and bad adjectives, so every word, and every
pair of words that stand side by side, is as frequent in one class as in the other, but for chance:
a negation counts only for the judgement it belongs to. A network that works reaches 99 %.
"""

import random

from .texts import Corpus

CLASSES = ["negative", "positive"]
SIZES = {"train": 6_000, "validation": 800, "test": 800}
SUBJECTS = ["the film", "the plot", "the acting", "the music", "the ending", "the script"]
ADJECTIVES = {
    "positive": ["good", "great", "superb", "moving", "brilliant", "funny", "clever", "charming"],
    "negative": ["bad", "awful", "dull", "boring", "terrible", "flat", "clumsy", "stupid"],
}
PLAIN = ["i would say that {} was", "i found that {} was", "to me {} was", "i think that {} was"]
NEGATED = [
    "i would never say that {} was", "i did not find that {} was", "to me {} was not",
    "i do not think that {} was",
]  # fmt: skip
DEGREES = ["all that", "really", "exactly", "what you would call", "in any way", "as they say"]
ASIDES = {
    False: ["i paid", "we sat in front", "it rained that day", "my sister came along"],
    True: [
        "i did not pay", "we never sat in front", "it did not rain that day",
        "my sister did not come along",
    ],
}  # fmt: skip
OPENINGS = ["", "well , ", "so , ", "oh , "]


def sentence(rng: random.Random) -> tuple[str, int]:
    """One sentence, and its class."""
    positive, negated = rng.random() < 0.5, rng.random() < 0.5
    adjective = rng.choice(ADJECTIVES["positive" if positive else "negative"])
    judgement = rng.choice(NEGATED if negated else PLAIN).format(rng.choice(SUBJECTS))
    judgement = f"{judgement} {rng.choice(DEGREES)} {adjective}"
    aside = rng.choice(ASIDES[rng.random() < 0.5])
    first, second = (judgement, aside) if rng.random() < 0.5 else (aside, judgement)
    return f"{rng.choice(OPENINGS)}{first} . {second} .", int(positive != negated)


def load(split: str) -> Corpus:
    """Different sentences in each split; the same ones every time."""
    rng, made = random.Random(0), {}
    while len(made) < sum(SIZES.values()):
        text, label = sentence(rng)
        made[text] = label
    names = list(SIZES)
    start = sum(SIZES[name] for name in names[: names.index(split)])
    texts = list(made)[start : start + SIZES[split]]
    return Corpus.of(texts, [made[text] for text in texts], CLASSES, {})
