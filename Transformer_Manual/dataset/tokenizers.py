"""Sentences as numbers and back, by words or characters (and subwords, in subwords.py).

One vocabulary holds both languages, so that one embedding serves source, target and output (Vaswani
et al., 2017, section 3.4). encode(text) gives the numbers of a text without BEGIN and END,
decode(numbers) the text again, pieces(numbers) what each number stands for. A checkpoint holds the
whole tokenizer: to translate with it, no data is needed.
"""

from collections import Counter
from collections.abc import Iterable

import torch

from common.errors import UserError

from . import words

PAD, UNKNOWN, BEGIN, END = range(4)
SPECIALS = (words.PAD, words.UNKNOWN, "<s>", "</s>")
UNREADABLE = "⁇"  # how an unknown piece is written
CLOSING = set(".,!?)'")  # stand at the word before them
SHORT = {"s", "t", "re", "ve", "ll", "d", "m"}  # stand at the apostrophe before them: it's


class Tokenizer:
    """What all have in common. `state_dict()` goes into checkpoints, `of` takes it back."""

    kind: str

    def load_state_dict(self, state: dict) -> None:
        """A run goes on with the tokenizer it began with. Raises ValueError for another one."""
        ours = self.state_dict()
        same = ours.keys() == state.keys() and all(
            torch.equal(value, state[name]) if torch.is_tensor(value) else value == state[name]
            for name, value in ours.items()
        )
        if not same:
            raise ValueError("it was learned from other sentences than those that are here now")


class Characters(Tokenizer):
    """Each character is a piece: for dates and strings of letters."""

    kind = "character"

    def __init__(self, characters: str):
        self.characters = characters
        self.tokens = {c: token for token, c in enumerate(characters, len(SPECIALS))}

    @classmethod
    def learn(cls, texts: Iterable[str], size: int) -> "Characters":
        """The characters of these texts; of more than there is room for, the most frequent."""
        counts = Counter(character for text in texts for character in text)
        frequent = sorted(counts, key=lambda c: (-counts[c], c))[: size - len(SPECIALS)]
        return cls("".join(sorted(frequent)))

    @classmethod
    def of(cls, state: dict) -> "Characters":
        if not isinstance(state["characters"], str):
            raise ValueError("its vocabulary is not one of characters")
        return cls(state["characters"])

    def __len__(self) -> int:
        return len(SPECIALS) + len(self.characters)

    def encode(self, text: str) -> list[int]:
        return [self.tokens.get(character, UNKNOWN) for character in text]

    def pieces(self, numbers: Iterable[int]) -> list[str]:
        return [(*SPECIALS, *self.characters)[number] for number in numbers]

    def decode(self, numbers: Iterable[int]) -> str:
        kept = [number for number in numbers if number not in (PAD, BEGIN, END)]
        return "".join(UNREADABLE if n == UNKNOWN else self.pieces([n])[0] for n in kept)

    def state_dict(self) -> dict:
        return {"kind": self.kind, "characters": self.characters}


class Words(Tokenizer):
    """torchtext's "basic_english" words and vocabulary (words.py).

    Its words are in lower case, and nothing tells afterwards which letters were capitals: what is
    decoded is detokenised, but stays in lower case, so a cased BLEU counts every name and every
    beginning of a sentence as a mistake.
    """

    kind = "word"

    def __init__(self, vocabulary):
        self.vocabulary = vocabulary

    @classmethod
    def learn(cls, texts: Iterable[str], size: int, min_freq: int = 2) -> "Words":
        """The most frequent words, `size` with the specials at most; none that is there once.

        Raises UserError if there are none.
        """
        counts = Counter(word for line in texts for word in words.basic_english(line))
        if not any(count >= min_freq for count in counts.values()):
            raise UserError(
                f"no word is there {min_freq} times in the {sum(counts.values())} words of the "
                "sentences to learn from: use --tokenizer subword"
            )
        return cls(words.build_vocabulary(counts, min_freq, size, SPECIALS))

    @classmethod
    def of(cls, state: dict) -> "Words":
        known = state["words"]
        if tuple(known[: len(SPECIALS)]) != SPECIALS or not all(isinstance(w, str) for w in known):
            raise ValueError("its vocabulary is not one of words")
        return cls(words.make_vocabulary(known))

    def __len__(self) -> int:
        return len(self.vocabulary)

    def encode(self, line: str) -> list[int]:
        numbers = self.vocabulary.lookup_indices(words.basic_english(line))
        return [number if number >= len(SPECIALS) else UNKNOWN for number in numbers]  # "<pad>"

    def pieces(self, numbers: Iterable[int]) -> list[str]:
        return self.vocabulary.lookup_tokens(list(numbers))

    def decode(self, numbers: Iterable[int]) -> str:
        """Words with spaces between them, but for punctuation: a man, smiling (it's him)."""
        kept = [number for number in numbers if number not in (PAD, BEGIN, END)]
        line = ""
        for number, word in zip(kept, self.pieces(kept), strict=True):
            word = UNREADABLE if number == UNKNOWN else word
            joined = not line or word in CLOSING or line.endswith("(")
            joined |= word in SHORT and line.endswith("'")
            line += word if joined else f" {word}"
        return line

    def state_dict(self) -> dict:
        return {"kind": self.kind, "words": self.vocabulary.get_itos()}
