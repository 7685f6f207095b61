"""Tokenised texts kept beside the data, so that the second run begins at once."""

from contextlib import suppress
from pathlib import Path

import numpy
import torch

from common import checkpoint, distributed
from common.errors import UserError, reading

from .ragged import Ragged
from .texts import Corpus

VERSION = 1  # of the reader and the tokenizer: another one makes other words of the same data


def load(path: Path, key: str) -> Corpus | None:
    """What `save` wrote for the data of this checksum; None if that is absent or damaged."""
    if not path.is_file():
        return None
    with suppress(UserError), reading(path):
        state = checkpoint.load(path)
        tokens = state["tokens"].numpy().tobytes().decode().split("\n")
        words, lengths, labels = state["words"], state["lengths"], state["labels"]
        known = bool(((words >= 0) & (words < len(tokens))).all())
        whole = lengths.sum() == len(words) and len(labels) == len(lengths) and min(lengths) >= 0
        if (state["key"], state["version"]) == (key, VERSION) and known and whole:
            words = Ragged.of(words, lengths)
            return Corpus(words, tokens, labels, state["classes"], state["checksums"])
    return None


def save(path: Path, key: str, corpus: Corpus) -> None:
    """Whole or not at all; where it cannot be written, the next run tokenises again."""
    if not distributed.is_first():
        return
    tokens = numpy.frombuffer("\n".join(corpus.tokens).encode(), dtype="uint8")  # no word has a \n
    state = {
        "key": key, "version": VERSION, "classes": corpus.classes, "checksums": corpus.checksums,
        "words": corpus.words.values, "lengths": corpus.words.lengths, "labels": corpus.labels,
        "tokens": torch.from_numpy(tokens.copy()),
    }  # fmt: skip
    with suppress(UserError, OSError):
        checkpoint.remove_leftovers(path.parent, seconds=60)
        checkpoint.save(path, state)
