"""Any folder of images as a dataset: D/train/<class>/, D/val/<class>/, D/test/<class>/.

`test/` is the test split and `val/` the validation split. Where only one of the two is there, it is
the test split (as ImageNet's val/ is used), and validation is held out of train/.
"""

import hashlib
import os
import unicodedata
from argparse import Namespace
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from common.data import Split, stratified_split
from common.errors import UserError
from common.files import sha256

from .crops import fit, random_crop
from .pictures import read_image
from .streamed import Streamed

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff"}
SMALL, LARGE = 64, 224  # pixels: the longer side of the first image up to the one, else the other
IN_MEMORY_BYTES = 2 * 1024**3  # a split of more pixels than that is streamed from the disk
VALIDATION_SHARE = 0.1


class Files(NamedTuple):
    """The images of a split: paths, and the number of each one's class."""

    paths: list[Path]
    labels: Tensor
    classes: list[str]

    def take(self, rows: Tensor) -> "Files":
        return Files([self.paths[row] for row in rows.tolist()], self.labels[rows], self.classes)


def entries(folder: Path) -> list[Path]:
    """What lies in a folder, sorted, but for hidden files. Raises UserError when it is locked."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise UserError(f"{folder} cannot be read ({error.strerror})") from None


def find_files(root: Path, split: str) -> Files:
    """Every image of a split. Raises UserError for other files and for empty classes.

    Classes are in the order of their names, whichever way those write their accents (macOS and
    Linux differ): "é" is one character in NFC, two in NFD.
    """
    folder, folders = root / split, {}
    for path in entries(folder):
        name = unicodedata.normalize("NFC", path.name)
        if path.is_dir() and folders.setdefault(name, path) != path:
            raise UserError(f"{folder} has {name} twice, in NFC and NFD: make one folder of them")
    if not folders:
        raise UserError(f"{folder} has no folders: images lie in {split}/<class>/")
    paths, labels, classes = [], [], sorted(folders)
    for label, name in enumerate(classes):
        found = entries(folders[name])
        if not found:
            raise UserError(f"{folders[name]} is empty: a class needs images")
        for path in found:
            if path.suffix.lower() not in SUFFIXES or not path.is_file():
                raise UserError(f"{path} is no image ({', '.join(sorted(SUFFIXES))}): remove it")
        paths += found
        labels += [label] * len(found)
    return Files(paths, torch.tensor(labels), classes)


def find_splits(data_dir: str | None) -> dict[str, Files]:
    """The images of "train", of "test", and of "validation" where that is a split of its own."""
    if not data_dir or not os.path.isdir(data_dir):
        raise UserError(f"--dataset folder needs --data-dir, a folder of images, not {data_dir}")
    root = Path(data_dir)
    there = [name for name in ("train", "val", "test") if (root / name).is_dir()]
    if "train" not in there or len(there) == 1:
        raise UserError(f"{root} needs train/<class>/ and test/<class>/ or val/<class>/")
    files = {name: find_files(root, name) for name in there}
    for name in there[1:]:
        differing = set(files[name].classes) ^ set(files["train"].classes)
        if differing:
            names = ", ".join(sorted(differing))
            raise UserError(f"{root}: train/ and {name}/ do not have the same classes: {names}")
    if "test" not in there:
        return {"train": files["train"], "test": files["val"]}
    return {{"val": "validation"}.get(name, name): found for name, found in files.items()}


def natural_size(files: Files) -> int:
    """The side that the images are used with: their own where small, else that of ImageNet's."""
    side = max(read_image(files.paths[0]).size)
    return side if side <= SMALL else LARGE


def load(files: Files, name: str, size: int, transform: Callable = fit) -> Split:
    """In memory when small enough; else streamed, with `transform` for training."""
    if len(files.paths) * 3 * size**2 > IN_MEMORY_BYTES:
        sizes = [f"{path.parent.name}/{path.name} {path.stat().st_size}" for path in files.paths]
        listed = "\n".join(sizes).encode(errors="surrogateescape")  # names that are no text, too
        checksums = {f"{name}, names and sizes": sha256(listed)}
        return Streamed(files.paths, files.labels, files.classes, checksums, size, fit, transform)

    def read(path: Path) -> tuple[Tensor, bytes]:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror})") from None
        return fit(path, size, content), content

    checksum = hashlib.sha256()
    images = torch.empty(len(files.paths), 3, size, size, dtype=torch.uint8)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for row, (image, content) in enumerate(pool.map(read, files.paths)):
            images[row] = image
            checksum.update(content)
    return Split(images, files.labels, files.classes, {name: checksum.hexdigest()})


def check_size_flag(args: Namespace) -> None:
    """Raises UserError for an --image-size that nothing would look at."""
    if args.image_size and args.dataset != "folder":
        raise UserError(f"--image-size is of --dataset folder: {args.dataset} has its own")


def load_training(
    data_dir: str | None, size: int | None, refit: bool = False, transform: Callable = random_crop
) -> tuple[Split, Split | None]:
    """The training and validation splits: uint8 images (N, 3, size, size), labels (N,).

    With no `size`, `natural_size` decides. What is streamed for training is read by `transform`:
    cropped at random, or by `fit` as it is elsewhere. With `refit` the training split is both
    together, and there is none to validate on. (What no longer fits in memory is then streamed.)
    """
    splits = find_splits(data_dir)
    train = splits["train"]
    size = size or natural_size(train)
    if refit:
        names = [name for name in ("train", "validation") if name in splits]
        paths = [path for name in names for path in splits[name].paths]
        both = Files(paths, torch.cat([splits[name].labels for name in names]), train.classes)
        return load(both, " and ".join(names), size, transform), None
    if "validation" in splits:
        validation = load(splits["validation"], "val", size)
        return load(train, "train", size, transform), validation
    if len(train.paths) < 2 * len(train.classes):
        rare = train.classes[int(train.labels.bincount().argmin())]
        raise UserError(
            f"{data_dir} has no val/, and too few images in train/ to hold some out: class {rare} "
            "has one; add images, or val/<class>/"
        )
    held = max(len(train.classes), round(VALIDATION_SHARE * len(train.paths)))
    rows, held_out = stratified_split(train.labels, held)
    return (
        load(train.take(rows), "train", size, transform),
        load(train.take(held_out), "train, held out", size),
    )


def load_test(data_dir: str | None, size: int | None) -> Split:
    """The test split, for test.py alone."""
    splits = find_splits(data_dir)
    size = size or natural_size(splits["train"])
    return load(splits["test"], "test", size)
