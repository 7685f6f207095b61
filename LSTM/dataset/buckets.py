"""Training batches whose texts are of similar length."""

import torch
from torch import Tensor

POOL = 50  # batches that are sorted by length together


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
