"""Sequences of different lengths in one flat tensor, padded only when they become a batch."""

from collections.abc import Callable

import torch
from torch import Tensor

POOL = 50  # batches that are sorted by length together
IGNORED = -100  # the label of what does not count, as for nn.CrossEntropyLoss


def places(lengths: Tensor) -> tuple[Tensor, Tensor]:
    """For each value of sequences of these lengths: whose it is, and its place there."""
    rows = torch.repeat_interleave(lengths)
    return rows, torch.arange(len(rows), device=rows.device) - (lengths.cumsum(0) - lengths)[rows]


class Ragged:
    """N sequences of whole numbers: `values` holds them all, sequence n from starts[n] on."""

    def __init__(self, values: Tensor, starts: Tensor, lengths: Tensor):
        self.values, self.starts, self.lengths = values, starts, lengths

    @classmethod
    def of(cls, values: Tensor, lengths: Tensor) -> "Ragged":
        """Sequences that lie one after the other in `values`."""
        lengths = lengths.long()
        return cls(values, lengths.cumsum(0) - lengths, lengths)

    def __len__(self) -> int:
        return len(self.lengths)

    def to(self, device: torch.device) -> "Ragged":
        return self.map(lambda tensor: tensor.to(device))

    def map(self, function: Callable[[Tensor], Tensor]) -> "Ragged":
        return Ragged(*(function(part) for part in (self.values, self.starts, self.lengths)))

    def take(self, rows: Tensor) -> "Ragged":
        """These sequences alone; the values are shared."""
        return Ragged(self.values, self.starts[rows], self.lengths[rows])

    def sequence(self, row: int) -> Tensor:
        """One of them, without padding."""
        start = int(self.starts[row])
        return self.values[start : start + int(self.lengths[row])]

    def flat(self) -> Tensor:
        """The values of these sequences, one after the other: (sum of lengths,)."""
        rows, place = places(self.lengths)
        return self.values[self.starts[rows] + place]

    def ends_of(self, most: int | None) -> "Ragged":
        """Sequences of more than `most` values lose their middle: both ends stay, half each."""
        if most is None or not len(self) or int(self.lengths.max()) <= most:
            return self
        lengths = self.lengths.clamp(max=most)
        rows, place = places(lengths)
        cut = torch.where(place >= most - most // 2, (self.lengths - lengths)[rows], 0)
        return Ragged.of(self.values[self.starts[rows] + place + cut], lengths)

    def __getitem__(self, rows: Tensor | slice) -> tuple[Tensor, Tensor]:
        """A batch: (n,) rows -> (n, T) int64, filled up with 0, and the lengths (n,)."""
        starts, lengths = self.starts[rows], self.lengths[rows]
        T = max(1, int(lengths.max())) if len(lengths) else 1
        place = torch.arange(T, device=self.values.device)
        inside = place < lengths[:, None]
        place = (starts[:, None] + place).where(inside, 0)
        if not len(self.values):
            return place, lengths
        return self.values[place].long().where(inside, 0), lengths


def bucketed(lengths: Tensor, num_batches: int, generator: torch.Generator) -> list[Tensor]:
    """Every row once, in `num_batches` batches of equal size (to within one), whose rows are of
    similar length: (N,) -> num_batches x (about N / num_batches,).

    Rows are shuffled, those of `POOL` batches are sorted by length and cut into batches, and the
    batches are shuffled: little padding, and yet another composition in every epoch.
    """
    order = torch.randperm(len(lengths), generator=generator)
    ends = torch.arange(1, num_batches + 1) * len(lengths) // num_batches
    batches, start = [], 0
    for first in range(0, num_batches, POOL):
        bounds = ends[first : first + POOL]
        pool = order[start : bounds[-1]]
        pool = pool[lengths[pool].argsort(stable=True)]
        batches += pool.tensor_split(bounds[:-1] - start)
        start = int(bounds[-1])
    return [batches[n] for n in torch.randperm(num_batches, generator=generator).tolist()]


def batch_sizes(lengths: Tensor, most: int, step: int = 1) -> list[int]:
    """How many rows each batch has, so that none has more than `most` tokens, padding included.

    The lengths are sorted, either way. Rows are taken `step` at a time, and at least once.
    """
    sizes, rows, longest = [], 0, 0
    lengths = lengths.tolist()
    for start in range(0, len(lengths), step):
        part = lengths[start : start + step]
        if rows and (rows + len(part)) * max(longest, *part) > most:
            sizes.append(rows)
            rows, longest = 0, 0
        rows, longest = rows + len(part), max(longest, *part)
    return [*sizes, rows] if rows else sizes
