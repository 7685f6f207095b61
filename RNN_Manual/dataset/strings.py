"""Made-up strings, the folder's controlled datasets: the best loss that is possible is known.

anbn    aaabbb, then the next one: as many b as a, so the network has to count. How many a
        come is anybody's guess, and where the last b was, is not.
echo    Bacdbaac?B: a capital, some noise, a question mark, and the capital again. To predict
        it, the network has to remember it over the noise, which cannot be predicted.
"""

import math

import torch

from common.errors import UserError

from .characters import Stretch
from .text import Text

MOST = 12  # a in a string of anbn: 1 to 12, all equally likely
DELAY = 10  # characters of noise
CAPITALS, NOISE = "ABCD", "abcd"
SIZES_SEEDS = {"train": (120_000, 1), "validation": (12_800, 2), "test": (12_800, 3)}


def anbn(size: int, generator: torch.Generator) -> str:
    """At least `size` characters."""
    counts = torch.randint(1, MOST + 1, (size // 2 + 1,), generator=generator).tolist()
    return "".join("a" * n + "b" * n + "\n" for n in counts)


def echo(size: int, generator: torch.Generator, delay: int = DELAY) -> str:
    """At least `size` characters, in blocks of `delay` + 3."""
    rows = torch.randint(4, (size // (delay + 3) + 1, delay + 1), generator=generator).tolist()
    return "".join(
        CAPITALS[row[0]] + "".join(NOISE[n] for n in row[1:]) + "?" + CAPITALS[row[0]]
        for row in rows
    )


def best_loss(name: str, delay: int = DELAY) -> float:
    """The mean loss, nats per character, of a network that predicts all that can be predicted."""
    if name == "echo":  # a capital and each noise are one of four
        return (delay + 1) * math.log(4) / (delay + 3)
    # how often the a come, ln MOST nats, is all there is to know of a string of 2 n + 1 characters
    return math.log(MOST) / (MOST + 1 + 1)


def make(name: str, split_name: str, **options) -> Text:
    """The same text every time."""
    size, seed = SIZES_SEEDS[split_name]
    text = {"anbn": anbn, "echo": echo}[name](
        size + 1, torch.Generator().manual_seed(seed), **options
    )
    vocabulary = {"anbn": "\nab", "echo": "?" + CAPITALS + NOISE}[name]
    return Text(*Stretch.cut(text, list(vocabulary), 1, size + 1, {}))


def load_training(name: str, data_dir: str | None, refit: bool) -> tuple[Text, Text]:
    if refit:
        raise UserError(f"--refit is for texts: of {name} there are more strings than one needs")
    return make(name, "train"), make(name, "validation")


def load_test(name: str, data_dir: str | None) -> Text:
    return make(name, "test")
