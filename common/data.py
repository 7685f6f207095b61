"""Where data lies, what stands in for it, the validation split, shuffled batches from memory."""

import os
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from common import distributed
from common.errors import UserError
from common.files import DataMissing, download, is_there

ROOT = Path(__file__).resolve().parent.parent


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


def find(
    dataset: str, holds: Callable[[Path], bool], wanted: str,
    files: Callable[[], dict[str, tuple[list[str], str]]], folder: Path, data_dir: str | None,
) -> Path:  # fmt: skip
    """The first of `search_folders` that `holds` the dataset, or the place it was downloaded to.

    `files` says what to download: path -> (urls, md5). `wanted` is what the user looks for in a
    place. Raises DataMissing when there is neither a copy nor a network.
    """
    places = search_folders(folder, data_dir)
    for place in places:
        if holds(place):
            return place
    root = Path(data_dir) if data_dir else folder / "dataset"
    try:
        for path, (urls, md5) in files().items():
            if not is_there(root / path) and not is_there(root / path.removesuffix(".gz")):
                download(urls, root / path, md5)
    except (DataMissing, OSError) as error:
        looked = ", ".join(str(place) for place in places[:3])
        raise DataMissing(
            f"{dataset} is not in {looked}, and {error}; name the folder that holds {wanted} with "
            "--data-dir or PLAYGROUND_DATA"
        ) from None
    return root


def or_stand_in(
    dataset: str, named: bool, find: Callable[[], object], stand_in: str, notice: str
) -> str:
    """`dataset` if `find` finds it; else `stand_in`, which `notice` says loudly.

    A dataset that the user named is never replaced: then DataMissing is raised.
    """
    try:
        find()
    except DataMissing as error:
        if named:
            raise
        lines = []
        for part in (str(error), *notice.split("\n")):
            lines += textwrap.wrap(part, 95, break_long_words=False, break_on_hyphens=False)
        print("\n" + "\n".join(f"*** {line}" for line in lines) + "\n", file=sys.stderr)
        return stand_in
    return dataset


def stratified_split(labels: Tensor, size: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Indices of a training and a validation split: (N,) -> (N - size,), (size,), both sorted.

    The examples are shuffled, sorted by class, and every (N / size)-th one is held out: so each
    class keeps its share to within one example. A class of which nothing would be left to learn
    from gets one back, for one of the largest class. The seed is the split's own: runs with other
    seeds share one split.
    """
    N, classes = len(labels), labels.unique()
    if not 0 < size <= N - len(classes):
        why = f"too few to learn {len(classes)} classes from"
        raise UserError(f"cannot hold {size} of {N} examples out for validation: {why}")
    order = torch.randperm(N, generator=torch.Generator().manual_seed(seed))
    order = order[labels[order].argsort(stable=True)]
    held_out = torch.zeros(N, dtype=torch.bool)
    held_out[order[(torch.arange(size) * N + N // 2) // size]] = True
    for label in classes[~torch.isin(classes, labels[~held_out])]:
        largest = labels[~held_out].bincount().argmax()
        spare = order[~held_out[order] & (labels[order] == largest)][0]
        back = order[labels[order] == label][0]
        held_out[spare], held_out[back] = True, False
    return (~held_out).nonzero().squeeze(1), held_out.nonzero().squeeze(1)


def facts(data) -> dict:
    """What a checkpoint keeps of the split that a run learns, to know it again."""
    classes = data.classes if isinstance(data, Split) else None
    return {"classes": classes, "examples": len(data), "checksums": data.checksums}


class Split:
    """One split of a small dataset, whole in memory on the device.

    `inputs` (N, …) and `labels` (N,), the names of the `classes`, and the `checksums` of the files
    they came from. For data of this size, indexing a tensor is many times faster than a DataLoader
    (pytorch/pytorch#154318)."""

    def __init__(self, inputs: Tensor, labels: Tensor, classes: list[str], checksums: dict):
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

    def subset(self, size: int | None, flag: str = "--subset") -> "Split":
        """The first `size` examples in a fixed shuffled order; everything for None."""
        if size is None:
            return self
        if size > len(self):
            raise UserError(f"{flag} {size} is more than the {len(self)} training examples")
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
