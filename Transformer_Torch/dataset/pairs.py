"""Pairs of sentences: as they were read (`Sentences`), and as a network reads them (`Pairs`)."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from common import distributed
from common.errors import UserError

from .batches import IGNORED, batch_sizes
from .ragged import Ragged
from .tokenizers import BEGIN, END

Batch = tuple[tuple[Tensor, Tensor], Tensor]


@dataclass
class Sentences:
    """Sentence n of `source` means what sentence n of `target` does."""

    source: list[str]
    target: list[str]
    checksums: dict[str, str]

    def __len__(self) -> int:
        return len(self.source)

    def take(self, rows: list[int]) -> "Sentences":
        source, target = ([side[row] for row in rows] for side in (self.source, self.target))
        return replace(self, source=source, target=target)


def ragged(sequences: list[list[int]]) -> Ragged:
    lengths = torch.tensor([len(tokens) for tokens in sequences], dtype=torch.long)
    values = torch.tensor([token for tokens in sequences for token in tokens], dtype=torch.int32)
    return Ragged.of(values, lengths)


def encode_sources(tokenizer, sentences: list[str]) -> Ragged:
    """What the encoder reads: w1 … END. So no source is empty, and no row of attention either."""
    return ragged([[*tokenizer.encode(text), END] for text in sentences])


class Pairs:
    """Pairs of sentences in the tokens of `tokenizer`, padded batch by batch.

    A batch is ((source (N, S), target (N, T)), labels (N, T)): the decoder reads BEGIN w1 w2 …,
    its labels are w1 w2 … END and IGNORED where the sentence has ended.
    """

    unit = "pairs of sentences"

    def __init__(
        self, sentences: Sentences, tokenizer, source: Ragged, target: Ragged, dropout: float = 0.0
    ):
        self.sentences, self.tokenizer = sentences, tokenizer
        self.source, self.target = source, target
        self.checksums, self.labels = sentences.checksums, target.values
        self.dropout = dropout  # of subwords, in training batches alone

    @classmethod
    def encode(cls, sentences: Sentences, tokenizer) -> "Pairs":
        sides = sentences.source, sentences.target
        return cls.of(sentences, tokenizer, *([*map(tokenizer.encode, side)] for side in sides))

    @classmethod
    def of(cls, sentences: Sentences, tokenizer, source: list, target: list) -> "Pairs":
        """Of the tokens of each sentence, without BEGIN and END."""
        return cls(
            sentences, tokenizer, ragged([[*tokens, END] for tokens in source]),
            ragged([[BEGIN, *tokens, END] for tokens in target]),
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.sentences)

    @property
    def lengths(self) -> Tensor:
        """Tokens of the longer side of each pair, as the network reads it: (N,), on the CPU."""
        return torch.maximum(self.source.lengths, self.target.lengths - 1).cpu()

    def to(self, device: torch.device) -> "Pairs":
        source, target = self.source.to(device), self.target.to(device)
        return Pairs(self.sentences, self.tokenizer, source, target, self.dropout)

    def take(self, rows: Tensor) -> "Pairs":
        sentences = self.sentences.take(rows.tolist())
        rows = rows.to(self.labels.device)
        source, target = self.source.take(rows), self.target.take(rows)
        return Pairs(sentences, self.tokenizer, source, target, self.dropout)

    def subset(self, size: int | None) -> "Pairs":
        """The first `size` pairs in a fixed shuffled order; everything for None."""
        if size is None:
            return self
        if size > len(self):
            raise UserError(f"--subset {size} is more than the {len(self)} training examples")
        return self.take(
            torch.randperm(len(self), generator=torch.Generator().manual_seed(0))[:size]
        )

    @property
    def extra_length(self) -> int:
        """By how many tokens a target, with END, is longer than twice its source, at most."""
        return int((self.target.lengths - 1 - 2 * self.source.lengths).max())

    def up_to(self, most: int) -> "Pairs":
        """Without the pairs of which a side has more than `most` tokens, which is said aloud."""
        kept = (self.lengths <= most).nonzero().squeeze(1)
        if len(kept) == len(self):
            return self
        if not len(kept):
            raise UserError(f"--max-length {most} leaves none of the {len(self):,} pairs")
        left_out = len(self) - len(kept)
        print(f"{left_out:,} of {len(self):,} pairs have more than {most} tokens: left out")
        return self.take(kept)

    def batch(self, rows: Tensor) -> Batch:
        rows = rows.to(self.labels.device)
        source, _ = self.source[rows]
        target, lengths = self.target[rows]
        place = torch.arange(1, target.shape[1], device=target.device)
        labels = target[:, 1:].masked_fill(place >= lengths[:, None], IGNORED)
        return (source, target[:, :-1]), labels

    def recut(self, seed: int) -> "Pairs":
        """These pairs in subwords some of which are cut further (BPE-dropout), as `seed` will have
        it. None becomes longer than the longest was: those that would stay as they are."""
        if not self.dropout:
            return self
        sides, longest = (self.sentences.source, self.sentences.target), int(self.lengths.max())
        cut = [
            self.tokenizer.encode_randomly(texts, self.dropout, 2 * seed + side)
            for side, texts in enumerate(sides)
        ]
        for row, pair in enumerate(zip(*cut, strict=True)):
            if max(map(len, pair)) >= longest:  # and END
                for tokens, texts in zip(cut, sides, strict=True):
                    tokens[row] = self.tokenizer.encode(texts[row])
        return Pairs.of(self.sentences, self.tokenizer, *cut).to(self.labels.device)

    def sizes(self, batch_size: int) -> list[int]:
        """How many pairs the training batches have, from the shortest to the longest pairs.

        That depends on the lengths alone, not on which of equal length come together: so every
        epoch has as many batches. Of several processes, each gets as many pairs of every batch.
        """
        processes = distributed.world_size()
        lengths = self.lengths.sort().values[len(self) % processes :]
        if int(lengths[-1]) * processes > batch_size:
            raise UserError(
                f"--batch-size {batch_size} is in tokens, and a pair has {int(lengths[-1])}: raise "
                "it or lower --max-length"
            )
        return batch_sizes(lengths, batch_size, processes)

    def num_batches(self, batch_size: int) -> int:
        """Training steps per epoch."""
        return len(self.sizes(batch_size))

    def batches(
        self, batch_size: int, seed: int = 0, epoch: int = 0, skip: int = 0
    ) -> Iterator[Batch]:
        """Every pair once, in batches of similar length and of at most `batch_size` tokens of the
        longer side, padding included.

        Pairs are shuffled, sorted by their longer side and cut into batches, and the batches are
        shuffled: little padding, and in every epoch other pairs of equal length come together. It
        depends on (seed, epoch) alone: a resumed run leaves out the first `skip` batches. One of
        several processes gets its share of every batch; what cannot be dealt out evenly (fewer
        pairs than there are processes, of the shortest) sits this epoch out. With subword dropout,
        batches have as many pairs as without, and so more tokens.
        """
        # torch's generator on the CPU takes the lowest 32 bits of a seed alone
        chance = ((seed << 20) + epoch) % (2**32 - 5)
        generator = torch.Generator().manual_seed(chance)
        cut = self.recut(chance)
        rank, processes = distributed.rank(), distributed.world_size()
        order = torch.randperm(len(self), generator=generator)
        order = order[cut.lengths[order].argsort(stable=True)][len(self) % processes :]
        batches = order.split(self.sizes(batch_size))
        for number in torch.randperm(len(batches), generator=generator).tolist()[skip:]:
            yield cut.batch(batches[number][rank::processes])

    def in_order(self, batch_size: int = 4096) -> Iterator[Batch]:
        """Every pair once, the longest first, at most `batch_size` tokens a batch (a pair that has
        more comes alone): for evaluation, with little padding.

        One of several processes gets every so many-th batch: add the results up.
        """
        order = self.lengths.argsort(descending=True, stable=True)
        batches = order.split(batch_sizes(self.lengths[order], batch_size))
        for rows in batches[distributed.rank() :: distributed.world_size()]:
            yield self.batch(rows)
