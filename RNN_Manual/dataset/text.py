"""A split of a text, as the windows of truncated backpropagation through time."""

from collections.abc import Iterator

import torch
from torch import Tensor

from common.errors import UserError

from .characters import STREAMS

EVALUATION_STREAMS = STREAMS  # at most, and none shorter than
SHORTEST_STREAM = 4096  # for each begins without knowing what came before


class Text:
    """A stretch of text, whole in memory on the device, a token per character.

    `inputs` (n,) and `labels` (n,): the token after each. Every token of the split is a label once;
    the first one's input is the token before the split. `classes` are the characters of the
    vocabulary, `checksums` those of the files that the text came from.
    """

    unit = "characters"

    def __init__(
        self, inputs: Tensor, labels: Tensor, classes: list[str], checksums: dict[str, str]
    ):
        self.inputs, self.labels = inputs, labels
        self.classes, self.checksums = classes, checksums

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> "Text":
        inputs, labels = self.inputs.to(device), self.labels.to(device)
        return Text(inputs, labels, self.classes, self.checksums)

    def subset(self, size: int | None) -> "Text":
        """The first `size` characters; everything for None."""
        if size is None:
            return self
        if size > len(self):
            raise UserError(f"--subset {size} is more than the {len(self)} training examples")
        return Text(self.inputs[:size], self.labels[:size], self.classes, self.checksums)

    def num_batches(self, batch_size: int, window: int) -> int:
        """Training steps per epoch. Raises UserError when the text is too short for one."""
        steps = max(0, len(self) - window + 1) // (batch_size * window)
        if not steps:
            needed = batch_size * window + window - 1
            raise UserError(
                f"{batch_size} streams of {window} characters need a text of {needed:,}, and there "
                f"are {len(self):,} to train on: lower --batch-size or --window"
            )
        return steps

    def batches(
        self, batch_size: int, window: int, seed: int = 0, epoch: int = 0, skip: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Windows (T, N) of inputs and labels: each goes on where the one before it ended.

        The text is cut into N = `batch_size` streams of equal length, read side by side. Where the
        first begins depends on (seed, epoch) alone, so that each epoch cuts elsewhere, and what
        does not fill a stream or window is not always the same. A resumed run leaves out the first
        `skip` windows.
        """
        steps = self.num_batches(batch_size, window)
        length = (len(self) - window + 1) // batch_size
        # torch's generator on the CPU takes the lowest 32 bits of a seed alone
        generator = torch.Generator().manual_seed(((seed << 20) + epoch) % (2**32 - 5))
        start = int(torch.randint(window, (), generator=generator))
        streams = slice(start, start + batch_size * length)
        inputs = self.inputs[streams].view(batch_size, length).T  # (length, N)
        labels = self.labels[streams].view(batch_size, length).T
        for step in range(skip, steps):
            rows = slice(step * window, (step + 1) * window)
            yield inputs[rows], labels[rows]

    def in_order(
        self, window: int, most_streams: int = EVALUATION_STREAMS
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Windows (T, N) in which every character is a label exactly once: for evaluation.

        As many long streams as divide the text evenly, at most `most_streams`. With one, the text
        is read from beginning to end.
        """
        most = max(1, min(most_streams, len(self) // SHORTEST_STREAM))
        N = next(n for n in range(most, 0, -1) if len(self) % n == 0)
        inputs, labels = self.inputs.view(N, -1).T, self.labels.view(N, -1).T
        for start in range(0, len(inputs), window):
            yield inputs[start : start + window], labels[start : start + window]
