"""tiny-shakespeare, Python's help topics, and a text of your own, split by characters.

The last tenth is the test split (of tiny-shakespeare 111,540 characters: what nanoGPT calls
val), the twentieth before it is for validation. Once all choices are made, `--refit` trains on all
nine tenths, as nanoGPT does.
"""

from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from common.data import find, or_stand_in, search_folders
from common.errors import UserError
from common.files import is_file, read_file, sha256

from .encodings import decode

FILE = "tinyshakespeare/input.txt"
URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
MD5 = "6fb458f1232090904fb40fe944165e91"
SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
STREAMS = 16  # of equal length, in which a network may read the validation split


class Vocabulary:
    """The characters in the order of their tokens; no token has another meaning."""

    def __init__(self, characters: list[str]):
        self.characters = characters
        self.tokens = {character: token for token, character in enumerate(characters)}

    def __len__(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> Tensor:
        """(n,) int64. Raises ValueError for an empty text, and naming characters unknown here."""
        if not text:
            raise ValueError("it is empty: there is nothing to go on from")
        unknown = sorted(set(text) - self.tokens.keys())
        if unknown:
            raise ValueError(f"not in the vocabulary: {' '.join(map(repr, unknown))}")
        return torch.tensor([self.tokens[character] for character in text], dtype=torch.int64)

    def decode(self, tokens: list[int]) -> str:
        """The text of these tokens."""
        return "".join(self.characters[token] for token in tokens)

    def state_dict(self) -> dict:
        return {"characters": "".join(self.characters)}

    @classmethod
    def of(cls, state: dict) -> "Vocabulary":
        """As a checkpoint holds it. Raises ValueError for what is none."""
        characters = list(state["characters"])
        if not characters or characters != sorted({*"".join(characters)}):
            raise ValueError("its vocabulary is not of characters in the order of their codes")
        return cls(characters)

    def load_state_dict(self, state: dict) -> None:
        """Raises ValueError for another vocabulary: the weights belong to the characters."""
        if list(state["characters"]) != self.characters:
            raise ValueError(f"it has the characters {state['characters']!r}")


def find_file(folder: Path, data_dir: str | None) -> Path:
    """tiny-shakespeare's file, downloaded if it lies nowhere.

    Raises DataMissing when there is neither a copy nor a network.
    """

    def holds(place: Path) -> bool:
        return is_file(place / FILE)

    files = {FILE: ([URL], MD5)}
    return find("tiny-shakespeare", holds, FILE, lambda: files, folder, data_dir) / FILE


def or_help_topics(dataset: str, named: bool, folder: Path, data_dir: str | None) -> str:
    """`dataset` if it can be had; else, unless the user named it, "help-topics", said loudly."""
    if dataset != "tiny-shakespeare":
        return dataset
    notice = (
        "So this run learns ANOTHER TEXT instead: Python's own help topics.\n"
        "Its results are not comparable with tiny-shakespeare's."
    )
    found = partial(find_file, folder, data_dir)
    return or_stand_in(dataset, named, found, "help-topics", notice)


def read(dataset: str, folder: Path, data_dir: str | None) -> tuple[str, dict[str, str]]:
    """The whole text and the sha256 of where it came from. Raises UserError naming a bad file."""
    if dataset == "help-topics":
        from pydoc_data.topics import topics

        text = "\n\n".join(topics[name] for name in sorted(topics))
        return text, {"pydoc_data.topics": sha256(text.encode())}
    if dataset == "text":
        if not data_dir:
            raise UserError("--dataset text needs --data-dir, the folder that holds your input.txt")
        (place, *_) = search_folders(folder, data_dir)
        path = place / "input.txt"
    else:
        path = find_file(folder, data_dir)
    content, path = read_file(path, "name another text")
    text = decode(path, content)
    checksum = sha256(content)
    if dataset == "tiny-shakespeare" and checksum != SHA256:
        raise UserError(
            f"{path} is not tiny-shakespeare: {len(content):,} bytes with another checksum; delete "
            "it and download again, or use --dataset text for a text of your own"
        )
    return text, {path.name: checksum}


class Stretch(NamedTuple):
    """A split of a text as tokens: each label (n,) and the token before it, its input (n,).

    So every character of the split is a label once; the first one's input is the character before
    the split. `classes` are the characters of the vocabulary.
    """

    inputs: Tensor
    labels: Tensor
    classes: list[str]
    checksums: dict[str, str]

    @classmethod
    def cut(
        cls, text: str, classes: list[str], start: int, end: int, checksums: dict[str, str]
    ) -> "Stretch":
        """The characters from `start` to `end`, but for the text's first, which has none before."""
        tokens = Vocabulary(classes).encode(text[max(start - 1, 0) : end])
        return cls(tokens[:-1], tokens[1:], classes, checksums)


def bounds(length: int) -> dict[str, tuple[int, int]]:
    """Where each split of a text of `length` characters starts and ends."""
    test = int(0.9 * length)
    held_out = length // 20
    held_out -= held_out % STREAMS if held_out > STREAMS else 0
    return {
        "train": (0, test - held_out),
        "validation": (test - held_out, test),
        "train and validation": (0, test),
        "test": (test, length),
    }


def load(
    dataset: str, folder: Path, data_dir: str | None, wanted: tuple[str, ...]
) -> list[Stretch]:
    """Some of the splits. The vocabulary is that of the whole text, in the order of the codes."""
    text, checksums = read(dataset, folder, data_dir)
    vocabulary, ends = sorted(set(text)), bounds(len(text))
    if any(end - start < 2 for start, end in ends.values()):
        where = f"{next(iter(checksums))}: " if dataset == "text" else ""
        raise UserError(f"{where}a text of {len(text)} characters is too short to split")
    return [Stretch.cut(text, vocabulary, *ends[name], checksums) for name in wanted]


def load_training(
    dataset: str, folder: Path, data_dir: str | None, refit: bool
) -> tuple[Stretch, Stretch | None]:
    """What a run learns and what it is checked on; with `refit` it learns both, checked on none."""
    if refit:
        return *load(dataset, folder, data_dir, ("train and validation",)), None
    train, validation = load(dataset, folder, data_dir, ("train", "validation"))
    return train, validation
