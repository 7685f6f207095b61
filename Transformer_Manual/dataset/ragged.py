"""Sequences of different lengths in one flat tensor, padded only when they become a batch."""

from collections.abc import Callable

import torch
from torch import Tensor


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
