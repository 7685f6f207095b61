"""Texts with their classes: as they were read (`Corpus`), and as a network reads them (`Texts`)."""

from argparse import Namespace
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy
import torch
from torch import Tensor

from common import distributed
from common.data import Split, stratified_split
from common.errors import UserError

from .buckets import bucketed
from .log_ratios import LogRatios, checked, folds_of
from .ragged import Ragged
from .words import PAD, UNKNOWN, basic_english, build_vocabulary, make_vocabulary

MOST_TOKENS = 1_000_000  # of a batch that is evaluated: a text there has all its words


def number_words(texts: Iterable[str]) -> tuple[Tensor, Tensor, list[str]]:
    """Every word of all texts as a number, by first appearance; the words of each text; the words.

    -> (words of all texts,) int32, (texts,) int32, and what each number means. A vocabulary can be
    made of this for any part of the texts, without reading a text twice.
    """
    numbers: dict[str, int] = defaultdict()
    numbers.default_factory = numbers.__len__  # a new word gets the next number
    flat, lengths = array("i"), array("i")
    for text in texts:
        tokens = basic_english(text)
        flat.extend(map(numbers.__getitem__, tokens))
        lengths.append(len(tokens))
    flat, lengths = (torch.from_numpy(numpy.array(a, dtype="int32")) for a in (flat, lengths))
    return flat, lengths, list(numbers)


@dataclass
class Corpus:
    """Tokenised texts: the words of each as numbers into `tokens`, every word that occurs."""

    words: Ragged
    tokens: list[str]
    labels: Tensor
    classes: list[str]
    checksums: dict[str, str]

    @classmethod
    def of(
        cls, texts: Iterable[str], labels: Iterable[int], classes: list[str], checksums: dict
    ) -> "Corpus":
        flat, lengths, tokens = number_words(texts)
        labels = torch.as_tensor(list(labels), dtype=torch.long)
        return cls(Ragged.of(flat, lengths), tokens, labels, classes, checksums)

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: Tensor) -> "Corpus":
        return replace(self, words=self.words.take(rows), labels=self.labels[rows])

    def subset(self, size: int | None) -> "Corpus":
        """As Split.subset: the first `size` texts in a fixed shuffled order."""
        if size is None:
            return self
        if size > len(self):
            raise UserError(f"--subset {size} is more than the {len(self)} training examples")
        return self.take(
            torch.randperm(len(self), generator=torch.Generator().manual_seed(0))[:size]
        )

    def text(self, row: int) -> list[str]:
        """The words of one text."""
        return [self.tokens[number] for number in self.words.sequence(row).tolist()]

    def counts(self) -> dict[str, int]:
        """How often each word occurs in these texts."""
        counts = torch.bincount(self.words.flat().long(), minlength=len(self.tokens)).tolist()
        return {token: n for token, n in zip(self.tokens, counts, strict=True) if n}

    def groups(self) -> Tensor:
        """Which texts are the same, word for word: (N,) numbers of groups, by first appearance."""
        numbers: dict[bytes, int] = {}
        of = [self.words.sequence(row).numpy().tobytes() for row in range(len(self))]
        return torch.tensor([numbers.setdefault(text, len(numbers)) for text in of])

    def folds(self) -> Tensor:
        """Which texts are counted together for `LogRatios`: (N,). After `subset`, neighbours are no
        longer those of the file."""
        groups = self.groups()
        return folds_of(self.labels, first_of(groups)[groups])


def first_of(groups: Tensor) -> Tensor:
    """The first text of each group: (N,) numbers of groups -> (groups,) rows."""
    first = torch.full((int(groups.max()) + 1,), len(groups))
    return first.scatter_reduce(0, groups, torch.arange(len(groups)), "amin")


def split_off(corpus: Corpus, size: int) -> tuple[Corpus, Corpus]:
    """Hold out `size` different texts, each with all its copies, a fair share of every class.

    A text that stands on both sides would be known by heart: its class could be looked up. Raises
    UserError for a class that would have no text to learn from.
    """
    groups = corpus.groups()
    _, held_groups = stratified_split(corpus.labels[first_of(groups)], size)
    held = torch.isin(groups, held_groups)
    train, validation = (corpus.take(rows.nonzero().squeeze(1)) for rows in (~held, held))
    lost = set(corpus.labels.tolist()) - set(train.labels.tolist())
    if lost:
        name = corpus.classes[min(lost)]
        raise UserError(f"no text of class {name!r} is left to learn from: others share its texts")
    return train, validation


class Encoding:
    """What makes a text a network's input and its output a class; every checkpoint holds it.

    `ratios` is None without --ngrams.
    """

    def __init__(self, vocabulary, classes: list[str], ratios: LogRatios | None = None):
        self.vocabulary, self.classes, self.ratios = vocabulary, classes, ratios

    @classmethod
    def learn(cls, corpus: Corpus, args: Namespace) -> "Encoding":
        """The vocabulary of these texts: of the training split alone."""
        size = args.vocabulary_size
        return cls(build_vocabulary(corpus.counts(), args.min_freq, size), corpus.classes)

    def state_dict(self) -> dict:
        state = {"tokens": self.vocabulary.get_itos(), "classes": self.classes}
        return state | ({"ratios": self.ratios.state_dict()} if self.ratios else {})

    @classmethod
    def of(cls, state: dict) -> "Encoding":
        """As a checkpoint holds it. Raises ValueError for what is none."""
        tokens, classes = state["tokens"], state["classes"]
        if tokens[:2] != [PAD, UNKNOWN] or not all(isinstance(w, str) for w in [*tokens, *classes]):
            raise ValueError("its vocabulary is not one of words")
        ratios = checked(state["ratios"], len(classes)) if "ratios" in state else None
        return cls(make_vocabulary(tokens), classes, ratios)

    def load_state_dict(self, state: dict) -> None:
        """A run goes on with the words it began with. Raises ValueError for others."""
        other = Encoding.of(state)
        same = (other.ratios is None) == (self.ratios is None)
        if same and self.ratios is not None:
            same = self.ratios.is_like(other.ratios)
        words = self.vocabulary.get_itos(), self.classes
        if not same or words != (other.vocabulary.get_itos(), other.classes):
            raise ValueError(
                "its words, n-grams or classes are not those of the data that is here now"
            )


class Texts(Split):
    """A Split of texts: `inputs` are the numbers of their words, padded batch by batch.

    A batch's inputs are (tokens (N, T) filled up with 0, lengths (N,)); in training with --ngrams
    also the texts' folds (N,), those of `LogRatios`.
    """

    def __init__(
        self, corpus: Corpus, encoding: Encoding, inputs: Ragged, labels: Tensor,
        folds: Tensor | None = None,
    ):  # fmt: skip
        super().__init__(inputs, labels, corpus.classes, corpus.checksums)
        self.corpus, self.encoding, self.folds = corpus, encoding, folds

    @classmethod
    def encode(cls, corpus: Corpus, encoding: Encoding) -> "Texts":
        """Put into the numbers of the vocabulary."""
        table = torch.tensor(encoding.vocabulary.lookup_indices(corpus.tokens), dtype=torch.int32)
        words = corpus.words
        inputs = Ragged(table[words.values.long()], words.starts, words.lengths)
        return cls(corpus, encoding, inputs, corpus.labels)

    def to(self, device: torch.device) -> "Texts":
        inputs, labels = self.inputs.to(device), self.labels.to(device)
        folds = None if self.folds is None else self.folds.to(device)
        return Texts(self.corpus, self.encoding, inputs, labels, folds)

    def take(self, rows: Tensor) -> "Texts":
        corpus = self.corpus.take(rows.cpu())
        folds = None if self.folds is None else self.folds[rows]
        return Texts(corpus, self.encoding, self.inputs.take(rows), self.labels[rows], folds)

    def num_batches(self, batch_size: int) -> int:
        return -(-len(self) // batch_size)

    def rows(self, batch_size: int, seed: int, epoch: int, skip: int = 0) -> Iterator[Tensor]:
        """As Split.rows, but every text has its turn, in batches of texts of similar length.

        Batches are equal to within one text. Where several processes share one, what cannot be
        dealt out evenly sits this epoch out.
        """
        generator = torch.Generator().manual_seed(((seed << 20) + epoch) % (2**32 - 5))
        batches = bucketed(self.inputs.lengths.cpu(), self.num_batches(batch_size), generator)
        rank, processes = distributed.rank(), distributed.world_size()
        for rows in batches[skip:]:
            rows = rows[: len(rows) - len(rows) % processes]
            yield rows[rank::processes].to(self.labels.device)

    def batches(
        self, batch_size: int, seed: int = 0, epoch: int = 0, skip: int = 0
    ) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
        """As Split.batches, with the folds."""
        for rows in self.rows(batch_size, seed, epoch, skip):
            folds = () if self.folds is None else (self.folds[rows],)
            yield (*self.inputs[rows], *folds), self.labels[rows]

    def sorted_batches(self, batch_size: int = 256) -> Iterator[Tensor]:
        """Rows of every text once, the longest first: for evaluation with little padding. A batch
        has fewer rows where the longest text would make it larger than `MOST_TOKENS`."""
        lengths, order = self.inputs.lengths.sort(descending=True, stable=True)
        batches, row = [], 0
        while row < len(order):
            fitting = max(1, MOST_TOKENS // max(1, int(lengths[row])))
            batches.append(order[row : row + min(batch_size, fitting)])
            row += len(batches[-1])
        return iter(batches[distributed.rank() :: distributed.world_size()])


def check_choice(corpus: Corpus, where: Path) -> None:
    """Raises UserError for texts of one class."""
    if len(corpus.classes) < 2:
        raise UserError(f"{where} has one class only, {corpus.classes[0]!r}: there is no choice")


def check_copies(corpus: Corpus, where: Path) -> None:
    """Raises UserError for a class that cannot be split: copies of a text count once."""
    different = torch.stack([corpus.labels, corpus.groups()]).unique(dim=1)
    present = different[0].bincount(minlength=len(corpus.classes))
    if int(present.min()) < 2:
        rare = corpus.classes[int(present.argmin())]
        raise UserError(
            f"{where} has fewer than 2 different texts of class {rare!r}: none to hold out"
        )
