"""A split that is too large for memory: images are read from the disk as they are needed."""

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from common import distributed
from common.data import Split

MOST_WORKERS = 8


class Rows(Dataset):
    """What the DataLoader's workers call."""

    def __init__(self, read: Callable[[int], Tensor]):
        self.read = read

    def __getitem__(self, row: int) -> Tensor:
        return self.read(row)


class Streamed(Split):
    """A Split without its images in memory: same methods, same order of examples.

    `fit(path, size)` reads an image (3, size, size); `transform(path, size)` does so with random
    changes, for training. Those depend on (seed, epoch, example) alone, so that a resumed run sees
    the same images, whichever process reads them.
    """

    def __init__(
        self, paths: list[Path], labels: Tensor, classes: list[str], size: int,
        fit: Callable, transform: Callable | None = None,
    ):  # fmt: skip
        names = "\n".join(f"{path.parent.name}/{path.name} {path.stat().st_size}" for path in paths)
        checksums = {"names and sizes": hashlib.sha256(names.encode()).hexdigest()}
        super().__init__(torch.empty(0, 3, size, size), labels, classes, checksums)
        self.paths, self.fit, self.transform, self.size = paths, fit, transform or fit, size

    def to(self, device: torch.device) -> "Streamed":
        return self.with_paths(self.paths, self.labels.to(device))

    def take(self, rows: Tensor) -> "Streamed":
        return self.with_paths([self.paths[row] for row in rows.tolist()], self.labels[rows])

    def with_paths(self, paths: list[Path], labels: Tensor) -> "Streamed":
        return Streamed(paths, labels, self.classes, self.size, self.fit, self.transform)

    def images(self, rows: Tensor) -> Tensor:
        return torch.stack([self.fit(self.paths[row], self.size) for row in rows.tolist()])

    def batches(
        self, batch_size: int, seed: int = 0, epoch: int = 0, skip: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        def read(row: int) -> Tensor:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(((seed << 40) + (epoch << 28) + row) % 2**63)
                return self.transform(self.paths[row], self.size)

        return self.stream(list(self.rows(batch_size, seed, epoch, skip)), read)

    def in_order(self, batch_size: int = 256) -> Iterator[tuple[Tensor, Tensor]]:
        def read(row: int) -> Tensor:
            return self.fit(self.paths[row], self.size)

        first, step = distributed.rank() * batch_size, distributed.world_size() * batch_size
        starts = range(first, len(self), step)
        rows = torch.arange(len(self))
        return self.stream([rows[start : start + batch_size] for start in starts], read)

    def stream(self, batches: list[Tensor], read: Callable) -> Iterator[tuple[Tensor, Tensor]]:
        """Read the rows of each batch in worker processes, while the network computes."""
        device = self.labels.device
        loader = DataLoader(
            Rows(read), batch_sampler=[rows.tolist() for rows in batches],
            num_workers=min(MOST_WORKERS, os.cpu_count() or 1), pin_memory=device.type == "cuda",
            generator=torch.Generator(),  # the workers' seeds are not drawn from the run's
        )  # fmt: skip
        for rows, images in zip(batches, loader, strict=True):
            yield images.to(device, non_blocking=True), self.labels[rows]
