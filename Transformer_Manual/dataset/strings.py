"""Strings of letters made by code, whose answer is known.

reverse    "qwert" -> "trewq"
copy       "qwert" -> "qwert"

A network that works gets all of them right. No string is in two splits.
"""

import random

from .pairs import Sentences

SIZES = {"train": 20_000, "validation": 1_000, "test": 1_000}
SHORTEST, LONGEST = 3, 16  # letters of a string
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def strings(rng: random.Random, size: int) -> list[str]:
    """Different strings of letters."""
    made = {}
    while len(made) < size:
        made["".join(rng.choices(LETTERS, k=rng.randint(SHORTEST, LONGEST)))] = None
    return list(made)


def load(dataset: str, split: str) -> Sentences:
    """The same pairs every time."""
    step = -1 if dataset == "reverse" else 1
    made = strings(random.Random(0), sum(SIZES.values()))
    names = list(SIZES)
    start = sum(SIZES[name] for name in names[: names.index(split)])
    source = made[start : start + SIZES[split]]
    return Sentences(source, [letters[::step] for letters in source], {})
