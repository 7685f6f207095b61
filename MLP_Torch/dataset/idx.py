"""MNIST's files: found or downloaded, told from others, and read, packed by gzip or not.

torchvision knows the mirrors. The files are read here, since torchvision wants them unpacked and
says nothing of damaged ones. Their format, idx, is a big-endian header (0, 0, 8 for unsigned bytes,
number of dimensions, each dimension as an int32), and then the bytes.
"""

import math
import struct
from pathlib import Path

import torch
from torch import Tensor

from common import data
from common.data import Split
from common.errors import UserError
from common.files import is_there, read_file, sha256

MNIST = {  # sha256 of the unpacked files
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
FASHION_MNIST = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
KNOWN = {  # checksum -> whose file it is: tells a swapped file from a good one
    checksum: (dataset, name)
    for dataset, checksums in {"mnist": MNIST, "fashion-mnist": FASHION_MNIST}.items()
    for name, checksum in checksums.items()
}


def find(dataset: str, raw: str, folder: Path, data_dir: str | None) -> Path:
    """The folder with the four files, downloaded if they lie nowhere. `raw` is torchvision's path.

    Raises DataMissing when there is neither a copy nor a network.
    """

    def files() -> dict[str, tuple[list[str], str]]:
        from torchvision import datasets  # slow to import

        official = getattr(datasets, raw.split("/")[0])
        return {
            f"{raw}/{name}": ([mirror + name for mirror in official.mirrors], md5)
            for name, md5 in official.resources
        }

    def holds(place: Path) -> bool:
        return all(is_there(spelled(place / raw, name)) for name in MNIST)

    return data.find(dataset, holds, raw, files, folder, data_dir) / raw


def spelled(raw: Path, name: str) -> Path:
    """The file's path: some copies are called train-images.idx3-ubyte."""
    other = raw / name.replace("-idx", ".idx")
    return other if is_there(other) and not is_there(raw / name) else raw / name


def load(raw: Path, files: dict[str, tuple], dataset: str, classes: list[str]) -> Split:
    """The two `files`, images and labels, every byte accounted for; `files` holds their shapes.

    Images (N, 1, H, W) uint8, labels (N,) int64. Raises UserError naming the file that is wrong.
    """
    (images_name, labels_name), (image_shape, label_shape) = files, files.values()
    images, images_sum = read(raw, images_name, image_shape, dataset)
    labels, labels_sum = read(raw, labels_name, label_shape, dataset)
    if len(images) != len(labels):
        raise UserError(
            f"{raw}: {len(images)} images in {images_name} but {len(labels)} labels in "
            f"{labels_name}; delete both and download again"
        )
    if len(labels) == 0 or labels.max() >= len(classes):
        found = "no labels" if len(labels) == 0 else f"label {labels.max()}"
        raise UserError(f"{raw / labels_name} holds {found}: delete it and download again")
    checksums = {images_name: images_sum, labels_name: labels_sum}
    return Split(images[:, None], labels.long(), classes, checksums)


def read(raw: Path, name: str, shape: tuple, dataset: str) -> tuple[Tensor, str]:
    """The array in one file, and the unpacked file's sha256. Raises UserError for a damaged one.

    `shape` is what the real file has; a smaller one may have another of as many dimensions.
    """
    content, path = read_file(spelled(raw, name))
    checksum, header = sha256(content), 4 + 4 * len(shape)
    again = ": delete it and download again"
    owner, known_name = KNOWN.get(checksum, (dataset, name))
    if (owner, known_name) != (dataset, name):
        raise UserError(f"{path} is really {owner}'s {known_name}{again}")
    if len(content) == header + math.prod(shape) and checksum not in KNOWN:
        raise UserError(f"{path} is damaged: its checksum is not that of {dataset}{again}")
    if len(content) < header or content[:4] != bytes([0, 0, 8, len(shape)]):
        raise UserError(f"{path} is no idx file of {len(shape)}-dimensional bytes{again}")
    shape = struct.unpack(f">{len(shape)}i", content[4:header])
    announced, there = math.prod(shape), len(content) - header
    if there != announced or min(shape) < 0 or 0 in shape[1:]:
        raise UserError(f"{path} is damaged: {announced:,} bytes announced, {there:,} there{again}")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)[header:].view(shape), checksum
