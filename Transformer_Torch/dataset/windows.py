"""A stretch of text as windows of equal length, for a network that reads each by itself."""

from collections.abc import Iterator

import torch
from torch import Tensor

from common import distributed
from common.errors import UserError

from .batches import IGNORED
from .characters import Stretch, Vocabulary

Batch = tuple[tuple[Tensor], Tensor]


class Windows:
    """A stretch of text, whole in memory on the device, read in windows of `context` characters.

    A batch is ((tokens (N, T),), labels (N, T)): the character after each; labels that do not
    count are IGNORED.
    """

    unit = "characters"

    def __init__(self, stretch: Stretch, context: int):
        self.stretch, self.context = stretch, context
        self.labels, self.checksums = stretch.labels, stretch.checksums
        self.tokenizer = Vocabulary(stretch.classes)

    def __len__(self) -> int:
        return len(self.labels)

    def with_tokens(self, inputs: Tensor, labels: Tensor) -> "Windows":
        return Windows(self.stretch._replace(inputs=inputs, labels=labels), self.context)

    def to(self, device: torch.device) -> "Windows":
        return self.with_tokens(self.stretch.inputs.to(device), self.labels.to(device))

    def subset(self, size: int | None) -> "Windows":
        """The first `size` characters; everything for None."""
        if size is None:
            return self
        if size > len(self):
            raise UserError(f"--subset {size} is more than the {len(self)} training examples")
        return self.with_tokens(self.stretch.inputs[:size], self.labels[:size])

    def at(self, starts: Tensor, length: int) -> Batch:
        """The windows that start there: (N,) -> (N, length)."""
        places = starts[:, None] + torch.arange(length, device=starts.device)
        return (self.stretch.inputs[places],), self.labels[places]

    def num_batches(self, batch_size: int) -> int:
        """Training steps per epoch. Raises UserError when the text is too short for one."""
        processes = distributed.world_size()
        if batch_size < processes:
            raise UserError(f"--batch-size {batch_size} leaves some of {processes} processes idle")
        windows = (len(self) - self.context + 1) // self.context
        if windows < batch_size:
            needed = (batch_size + 1) * self.context - 1
            raise UserError(
                f"batches of {batch_size} windows of {self.context} characters need a text of "
                f"{needed:,}, and there are {len(self):,} to train on: lower --batch-size or "
                "--max-length"
            )
        return windows // batch_size

    def batches(
        self, batch_size: int, seed: int = 0, epoch: int = 0, skip: int = 0
    ) -> Iterator[Batch]:
        """Windows that lie side by side, shuffled; what does not fill a batch sits this epoch out.

        Where the first begins and their order depend on (seed, epoch) alone, so that each epoch
        cuts elsewhere, and a resumed run leaves out the first `skip` batches. One of several
        processes gets its share of every batch.
        """
        steps, device = self.num_batches(batch_size), self.labels.device
        # torch's generator on the CPU takes the lowest 32 bits of a seed alone
        generator = torch.Generator().manual_seed(((seed << 20) + epoch) % (2**32 - 5))
        windows = (len(self) - self.context + 1) // self.context
        spare = len(self) - windows * self.context
        first = int(torch.randint(spare + 1, (), generator=generator))
        starts = first + self.context * torch.randperm(windows, generator=generator)
        for step in range(skip, steps):
            rows = starts[step * batch_size : (step + 1) * batch_size]
            share = rows[distributed.rank() :: distributed.world_size()]
            yield self.at(share.to(device), self.context)

    def in_order(self, batch_size: int = 64) -> Iterator[Batch]:
        """Windows in which every character of the stretch counts exactly once: for evaluation.

        Each begins half a window after the one before it, and only its second half counts, so that
        all but the very first characters have at least context / 2 characters of past. One of
        several processes gets every so many-th batch: add the results up.
        """
        T, n = min(self.context, len(self)), len(self)
        stride = max(1, T // 2)
        starts = torch.arange(0, n - T + stride, stride).clamp(max=n - T)  # (windows,)
        counted = torch.cat([torch.zeros(1, dtype=torch.long), starts[:-1] + T])  # by those before
        rows = torch.arange(len(starts)).split(batch_size)
        for batch in rows[distributed.rank() :: distributed.world_size()]:
            inputs, labels = self.at(starts[batch].to(self.labels.device), T)
            old = (starts[batch, None] + torch.arange(T) < counted[batch, None]).to(labels.device)
            yield inputs, labels.masked_fill(old, IGNORED)
