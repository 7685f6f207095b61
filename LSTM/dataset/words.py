"""Words of texts and their numbers: torchtext's where it loads, the same behaviour elsewhere.

This module and its copies alone import torchtext, whose last release goes with torch 2.3. The
vocabulary is torchtext's own where it loads, and `Vocab` below elsewhere. The tokenizer is ours in
either case: the same tokens as by torchtext's chain of regular expressions, several times faster.
"""

import functools
import warnings
from collections.abc import Iterable, Mapping
from types import ModuleType

PAD, UNKNOWN = "<pad>", "<unk>"  # the numbers 0 and 1 of every vocabulary
SPACED = "'.,()!?"  # characters that become words of their own


@functools.cache
def torchtext() -> ModuleType | None:
    """The module, or None where it is not installed or not of this torch."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is no longer developed
            import torchtext
            import torchtext.data
            import torchtext.vocab
    except (ImportError, OSError, RuntimeError, AttributeError):  # OSError: of another torch
        return None
    return torchtext


def basic_english(text: str) -> list[str]:
    """torchtext's "basic_english": lower case; ' . , ( ) ! ? are words of their own, " is left out,
    and ; : <br /> are spaces.

    "It's GREAT.<br />" -> ["it", "'", "s", "great", "."]
    """
    text = text.lower().replace('"', "").replace("<br />", " ")
    for character in SPACED:
        text = text.replace(character, f" {character} ")
    return text.replace(";", " ").replace(":", " ").split()


class Vocab:
    """torchtext.vocab.Vocab, as far as it is used here: words <-> numbers, in the order given.

    An unknown word has the default index; without one it raises RuntimeError.
    """

    def __init__(self, tokens: Iterable[str]):
        self.itos, self.default = list(tokens), None
        self.stoi = {token: index for index, token in enumerate(self.itos)}
        if len(self.stoi) != len(self.itos):
            raise RuntimeError("Duplicate token found in tokens list")

    def __len__(self) -> int:
        return len(self.itos)

    def __contains__(self, token: str) -> bool:
        return token in self.stoi

    def __getitem__(self, token: str) -> int:
        index = self.stoi.get(token, self.default)
        if index is None:
            raise RuntimeError(f"Token {token} not found and default index is not set")
        return index

    def __call__(self, tokens: list[str]) -> list[int]:
        return self.lookup_indices(tokens)

    def set_default_index(self, index: int | None) -> None:
        self.default = index

    def get_default_index(self) -> int | None:
        return self.default

    def lookup_indices(self, tokens: list[str]) -> list[int]:
        return [self[token] for token in tokens]

    def lookup_token(self, index: int) -> str:
        if not 0 <= index < len(self):
            raise RuntimeError(f"Specified index {index} is out of bounds")
        return self.itos[index]

    def lookup_tokens(self, indices: list[int]) -> list[str]:
        return [self.lookup_token(index) for index in indices]

    def get_itos(self) -> list[str]:
        return list(self.itos)

    def get_stoi(self) -> dict[str, int]:
        return dict(self.stoi)


def make_vocabulary(tokens: Iterable[str]) -> Vocab:
    """The vocabulary of these words in this order, with `UNKNOWN` for all others if it is there.

    A torchtext.vocab.Vocab where torchtext loads.
    """
    tokens, official = list(tokens), torchtext()
    vocabulary = Vocab(tokens)  # raises for words that are there twice
    if official is not None:
        vocabulary = official.vocab.vocab(dict.fromkeys(tokens, 1))
    if UNKNOWN in vocabulary:
        vocabulary.set_default_index(vocabulary[UNKNOWN])
    return vocabulary


def build_vocabulary(
    counts: Mapping[str, int], min_freq: int = 1, max_tokens: int | None = None,
    specials: Iterable[str] = (PAD, UNKNOWN),
) -> Vocab:  # fmt: skip
    """The specials, then the words by descending frequency; ties are in alphabetical order.

    As torchtext.vocab.build_vocab_from_iterator: `max_tokens` counts the specials, and a special
    that is a word of the text as well takes one of the places. Raises ValueError when there is
    no place left for words.
    """
    specials = list(specials)
    if max_tokens is not None and len(specials) >= max_tokens:
        raise ValueError(f"a vocabulary of {max_tokens} has no place for words beside {specials}")
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    if max_tokens is not None:
        ordered = ordered[: max_tokens - len(specials)]
    special = set(specials)
    words = [token for token, count in ordered if count >= min_freq and token not in special]
    return make_vocabulary(specials + words)
