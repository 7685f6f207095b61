"""A split that is too large for memory: images are read from the disk as they are needed."""

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from common import distributed
from common.data import Split
from common.errors import UserError

MOST_WORKERS = 8
AHEAD = 2  # batches that each worker has ready: DataLoader's default
SHARED_MEMORY = Path("/dev/shm")  # where they leave them, on Linux; Docker gives it 64 MiB


def processors() -> int:
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def workers_for(batch_bytes: int) -> int:
    """How many processes have room to read ahead in batches of that size."""
    wanted = min(MOST_WORKERS, processors())
    if not SHARED_MEMORY.is_dir():
        return wanted
    share = shutil.disk_usage(SHARED_MEMORY).free // distributed.world_size()
    possible = max(0, share // batch_bytes - 2) // AHEAD  # two batches more are under way
    if possible < wanted:
        say_that_memory_is_short()
    return min(wanted, possible)


@cache  # once
def say_that_memory_is_short() -> None:
    if distributed.is_first():
        print(
            f"{SHARED_MEMORY} is small, so fewer processes read images ahead, which is slower "
            "(Docker: --shm-size 8g)",
            file=sys.stderr,
        )


def ignore_ctrl_c(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal; what follows is the main one's to decide."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class Images(Dataset):
    """What the DataLoader's workers read: image `row`, its random changes drawn from (seed, row)
    where there is a seed."""

    def __init__(self, paths: list[Path], size: int, read: Callable, seed: tuple | None = None):
        self.paths, self.size, self.read, self.seed = paths, size, read, seed

    def __getitem__(self, row: int) -> Tensor:
        if self.seed is None:
            return self.read(self.paths[row], self.size)
        mixed = numpy.random.SeedSequence([*self.seed, row]).generate_state(1)[0]
        with torch.random.fork_rng(devices=[]):
            # the CPU's alone: a GPU's belongs to the run. Of a seed, it takes 32 bits
            torch.default_generator.manual_seed(int(mixed))
            return self.read(self.paths[row], self.size)


class Streamed(Split):
    """A Split without its images in memory: same methods, same order of examples.

    `fit(path, size)` reads an image (3, size, size); `transform(path, size)` does so with random
    changes, for training. Those depend on (seed, epoch, example) alone, so that a resumed run sees
    the same images, whichever process reads them.
    """

    def __init__(
        self, paths: list[Path], labels: Tensor, classes: list[str], checksums: dict[str, str],
        size: int, fit: Callable, transform: Callable,
    ):  # fmt: skip
        super().__init__(torch.empty(0, 3, size, size), labels, classes, checksums)
        self.paths, self.size, self.fit, self.transform = paths, size, fit, transform

    def to(self, device: torch.device) -> "Streamed":
        return self.with_paths(self.paths, self.labels.to(device))

    def take(self, rows: Tensor) -> "Streamed":
        return self.with_paths([self.paths[row] for row in rows.tolist()], self.labels[rows])

    def with_paths(self, paths: list[Path], labels: Tensor) -> "Streamed":
        return Streamed(
            paths, labels, self.classes, self.checksums, self.size, self.fit, self.transform
        )

    def images(self, rows: Tensor) -> Tensor:
        none = torch.empty(0, 3, self.size, self.size, dtype=torch.uint8)
        images = [self.fit(self.paths[row], self.size)[None] for row in rows.tolist()]
        return torch.cat([none, *images]).to(self.labels.device)

    def batches(
        self, batch_size: int, seed: int = 0, epoch: int = 0, skip: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        images = Images(self.paths, self.size, self.transform, (seed, epoch))
        return self.stream(images, list(self.rows(batch_size, seed, epoch, skip)))

    def in_order(self, batch_size: int = 256) -> Iterator[tuple[Tensor, Tensor]]:
        first, step = distributed.rank() * batch_size, distributed.world_size() * batch_size
        rows = torch.arange(len(self))
        batches = [rows[n : n + batch_size] for n in range(first, len(self), step)]
        return self.stream(Images(self.paths, self.size, self.fit), batches)

    def stream(self, images: Images, batches: list[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Read the rows of each batch in worker processes, while the network computes."""
        device = self.labels.device
        most = max((len(rows) for rows in batches), default=0)
        workers = workers_for(max(1, most * 3 * self.size**2))
        loader = DataLoader(
            images, batch_sampler=[rows.tolist() for rows in batches],
            num_workers=workers, pin_memory=device.type == "cuda",
            generator=torch.Generator(),  # the workers' seeds are not drawn from the run's
            worker_init_fn=ignore_ctrl_c,
        )  # fmt: skip
        try:
            for rows, pixels in zip(batches, loader, strict=True):
                yield pixels.to(device, non_blocking=True), self.labels[rows.to(device)]
        except UserError as error:  # from a worker, with its traceback as text: the last line
            error.__traceback__ = None  # it would keep the loader's workers waiting for more
            message = error.args[0].strip().splitlines()[-1].split("UserError: ")[-1]
            raise UserError(message) from None
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            reason = str(error).splitlines()[0]
            raise UserError(
                f"a process that reads images ended early ({reason}): memory or {SHARED_MEMORY} is "
                "too small (Docker: --shm-size 8g); try a smaller --batch-size"
            ) from None
