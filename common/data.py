"""Where data lies, downloads, the validation split, and shuffled batches from memory."""

import hashlib
import http.client
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from common import distributed
from common.errors import UserError

ROOT = Path(__file__).resolve().parent.parent


class DataMissing(UserError):
    """The dataset is nowhere to be found and could not be downloaded."""


def search_folders(folder: Path, data_dir: str | None) -> list[Path]:
    """Where to look, in order: --data-dir, $PLAYGROUND_DATA, own dataset/, the siblings'.

    `folder` is the model's folder. A --data-dir or $PLAYGROUND_DATA that is no readable folder
    is a UserError: the user meant it.
    """
    named = [("--data-dir", data_dir), ("PLAYGROUND_DATA", os.environ.get("PLAYGROUND_DATA"))]
    for name, place in named:
        if place and not (os.path.isdir(place) and os.access(place, os.R_OK | os.X_OK)):
            raise UserError(f"{name} {place} is not a folder that can be read")
    siblings = sorted(path for path in ROOT.glob("*/dataset") if path != folder / "dataset")
    return [Path(place) for _, place in named if place] + [folder / "dataset", *siblings]


def download(urls: list[str], path: Path, md5: str, timeout: float = 15) -> None:
    """Fetch `path` from the first of `urls` that has it, with a progress bar.

    It arrives under a temporary name and is moved to `path` once its md5 is right, so that a
    download cut short leaves nothing behind. Raises DataMissing when every url fails.
    """
    from torchvision.datasets.utils import check_md5, download_url  # slow to import

    made = [folder for folder in (path.parent, path.parent.parent) if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    failures, before = [], socket.getdefaulttimeout()
    temporary = Path(tempfile.mkdtemp(prefix=".download-", dir=path.parent))
    try:
        socket.setdefaulttimeout(timeout)
        for url in urls:
            try:
                download_url(url, str(temporary), path.name)
            except (OSError, RuntimeError, ValueError, http.client.HTTPException) as error:
                failures.append(f"{url}: {' '.join(str(error).split())}")
                (temporary / path.name).unlink(missing_ok=True)  # a part would pass for the file
                continue
            if check_md5(str(temporary / path.name), md5):
                os.replace(temporary / path.name, path)
                return
            failures.append(f"{url}: wrong checksum")
            (temporary / path.name).unlink()
    finally:
        socket.setdefaulttimeout(before)
        shutil.rmtree(temporary, ignore_errors=True)
        for folder in made:
            with suppress(OSError):  # it is empty only if nothing arrived
                folder.rmdir()
    raise DataMissing(f"{path.name} could not be downloaded ({'; '.join(failures)})")


def kept_at(beside: Path, otherwise: Path, name: str) -> Path:
    """Where the cache `name` belongs: beside the data, if files may be made there."""
    return (beside if writable(beside) else otherwise) / name


def writable(folder: Path) -> bool:
    """Whether files may be made there; a folder marked read-only is left alone by root, too."""
    bits = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
    return bool(os.access(folder, os.W_OK) and folder.stat().st_mode & bits)


def sha256(content: bytes) -> str:
    """The checksum that records and tables of known files hold."""
    return hashlib.sha256(content).hexdigest()


def stratified_split(labels: Tensor, size: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Indices of a training and a validation split: (N,) -> (N - size,), (size,), both sorted.

    The examples are shuffled, sorted by class, and every (N / size)-th one is held out: so each
    class keeps its share to within one example. A class that would be held out whole gets one back,
    for one of the largest. The seed is the split's own: runs with other seeds share one split.
    """
    N, classes = len(labels), labels.unique()
    if not 0 < size <= N - len(classes):
        raise UserError(f"cannot hold {size} of {N} examples of {len(classes)} classes out")
    order = torch.randperm(N, generator=torch.Generator().manual_seed(seed))
    order = order[labels[order].argsort(stable=True)]
    held_out = torch.zeros(N, dtype=torch.bool)
    held_out[order[(torch.arange(size) * N + N // 2) // size]] = True
    for label in classes[~torch.isin(classes, labels[~held_out])]:
        largest = labels[~held_out].bincount().argmax()
        held_out[order[~held_out[order] & (labels[order] == largest)][0]] = True
        held_out[order[labels[order] == label][0]] = False
    return (~held_out).nonzero().squeeze(1), held_out.nonzero().squeeze(1)


class Split:
    """One split of a small dataset, whole in memory on the device.

    `inputs` (N, …) and `labels` (N,), the names of the `classes`, and the `checksums` of the files
    they came from. For data of this size, indexing a tensor is many times faster than a DataLoader
    (pytorch/pytorch#154318).
    """

    def __init__(
        self, inputs: Tensor, labels: Tensor, classes: list[str], checksums: dict[str, str]
    ):
        self.inputs, self.labels = inputs, labels
        self.classes, self.checksums = classes, checksums

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, ...]:
        """One example's."""
        return tuple(self.inputs.shape[1:])

    def to(self, device: torch.device) -> "Split":
        inputs, labels = self.inputs.to(device), self.labels.to(device)
        return Split(inputs, labels, self.classes, self.checksums)

    def take(self, rows: Tensor) -> "Split":
        """These examples alone."""
        return Split(self.inputs[rows], self.labels[rows], self.classes, self.checksums)

    def images(self, rows: Tensor) -> Tensor:
        """The inputs of these examples."""
        return self.inputs[rows]

    def subset(self, size: int | None) -> "Split":
        """The first `size` examples in a fixed shuffled order; everything for None."""
        if size is None:
            return self
        if size > len(self):
            raise UserError(f"--subset {size} is more than the {len(self)} training examples")
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(0))[:size]
        return self.take(order.to(self.labels.device))

    def num_batches(self, batch_size: int) -> int:
        """Training steps per epoch."""
        return max(1, len(self) // batch_size)

    def rows(self, batch_size: int, seed: int, epoch: int, skip: int = 0) -> Iterator[Tensor]:
        """Which examples each batch has: shuffled, of equal size; the remainder sits this out.

        The order depends on (seed, epoch) alone: a resumed run finds its place again by leaving
        out the first `skip` batches, and needs no generator's state. One of several processes gets
        its share of every batch.
        """
        # torch's generator on the CPU takes the lowest 32 bits of a seed alone
        generator = torch.Generator().manual_seed(((seed << 20) + epoch) % (2**32 - 5))
        order = torch.randperm(len(self), generator=generator).to(self.labels.device)
        for step in range(skip, self.num_batches(batch_size)):
            rows = order[step * batch_size : (step + 1) * batch_size]
            yield rows[distributed.rank() :: distributed.world_size()]

    def batches(
        self, batch_size: int, seed: int = 0, epoch: int = 0, skip: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Shuffled training batches, as `rows` says."""
        for rows in self.rows(batch_size, seed, epoch, skip):
            yield self.inputs[rows], self.labels[rows]

    def in_order(self, batch_size: int = 1000) -> Iterator[tuple[Tensor, Tensor]]:
        """Every example once, in the dataset's order: for evaluation.

        One of several processes gets every so many-th batch: add the results up.
        """
        first, step = distributed.rank() * batch_size, distributed.world_size() * batch_size
        for start in range(first, len(self), step):
            rows = slice(start, start + batch_size)
            yield self.inputs[rows], self.labels[rows]
