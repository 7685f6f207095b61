"""How many sentences a batch has room for, and the label of what does not count."""

from torch import Tensor

IGNORED = -100  # the label of what does not count, as for nn.CrossEntropyLoss


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
