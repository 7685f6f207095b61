"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009): finding, downloading and reading them."""

import os
import pickle
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import torch

from common.data import Split, find, stratified_split
from common.errors import UserError
from common.files import is_file, sha256

VALIDATION_SIZE = 5_000
NAMES = ("cifar10", "cifar100")


def official_set(dataset: str) -> type:
    """torchvision's class, which knows the files, their md5 and where to fetch them."""
    from torchvision import datasets  # slow to import

    return {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[dataset]


def find_root(dataset: str, folder: Path, data_dir: str | None) -> Path:
    """The folder that holds the dataset's own, unpacked from its archive or downloaded if need be.

    Raises DataMissing when there is neither a copy nor a network.
    """
    official = official_set(dataset)

    def holds(place: Path) -> bool:
        return os.path.isdir(place / official.base_folder) or is_file(place / official.filename)

    files = {official.filename: ([official.url], official.tgz_md5)}
    return find(dataset, holds, official.base_folder, lambda: files, folder, data_dir)


def load(dataset: str, train: bool, folder: Path, data_dir: str | None) -> Split:
    """One of the two official splits: uint8 images (N, 3, 32, 32), labels (N,).

    torchvision checks every file's md5. Raises UserError for files that are damaged.
    """
    root = find_root(dataset, folder, data_dir)
    official = official_set(dataset)
    names = [name for name, _ in (official.train_list if train else official.test_list)]
    place, archive = root / official.base_folder, root / official.filename
    try:
        if archive.is_file() and damaged(official, place):
            unpack(official, archive, place)
        loaded = official(str(root), train=train)
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError, KeyError) as error:
        bad = damaged(official, place)
        reason = "" if bad else f" ({' '.join(str(error).split())[:200]})"
        raise UserError(
            f"{place / bad[0] if bad else place} is damaged or absent{reason}: "
            f"delete {place} and download again"
        ) from None
    images = torch.from_numpy(loaded.data).permute(0, 3, 1, 2).contiguous()
    checksums = {name: sha256((place / name).read_bytes()) for name in names}
    return Split(images, torch.tensor(loaded.targets), list(loaded.classes), checksums)


def damaged(official: type, place: Path) -> list[str]:
    """The files of the folder `place` that are not there, or not as they should be."""
    from torchvision.datasets.utils import check_integrity

    files = [*official.train_list, *official.test_list]
    files.append((official.meta["filename"], official.meta["md5"]))
    return [name for name, md5 in files if not check_integrity(str(place / name), md5)]


def unpack(official: type, archive: Path, place: Path) -> None:
    """Put the archive's folder to `place`, whole or not at all, also where other processes do the
    same. Raises UserError for an archive that is damaged."""
    from torchvision.datasets.utils import check_integrity, extract_archive

    if not check_integrity(str(archive), official.tgz_md5):
        raise UserError(f"{archive} is damaged: delete it and download again")
    temporary = Path(tempfile.mkdtemp(prefix=".unpack-", dir=archive.parent))
    try:
        extract_archive(str(archive), str(temporary))
        if damaged(official, place):
            with suppress(OSError):  # what an older, interrupted unpacking left
                os.replace(place, temporary / "old")
            with suppress(OSError):  # unless another process was there first
                os.replace(temporary / place.name, place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def load_training(dataset: str, folder: Path, data_dir: str | None) -> tuple[Split, Split]:
    """45,000 images to train on and 5,000 held out, the same for every seed."""
    everything = load(dataset, True, folder, data_dir)
    rows, held_out = stratified_split(everything.labels, VALIDATION_SIZE)
    return everything.take(rows), everything.take(held_out)
