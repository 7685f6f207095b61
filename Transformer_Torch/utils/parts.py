"""A batch in parts, each small enough for the memory (gradient accumulation)."""

from collections.abc import Iterator

from torch import Tensor, nn

from common import distributed
from Transformer_Torch.dataset.batches import IGNORED


def count(labels: Tensor) -> int:
    """How many labels of the batch count, in all processes together; IGNORED are those that
    nn.CrossEntropyLoss leaves out by itself."""
    return int(distributed.total((labels != IGNORED).sum()))


def in_parts(
    model: nn.Module, inputs: tuple[Tensor, ...], labels: Tensor, parts: int
) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
    """Inputs and labels of each part: every `parts`-th row, so that they are of like length.

    Of several processes, the gradients are averaged with the last part's.
    """
    parts = min(parts, len(labels))
    for part in range(parts):
        share = slice(part, None, parts)
        with distributed.synchronising(model, part == parts - 1):
            yield tuple(tokens[share] for tokens in inputs), labels[share]
