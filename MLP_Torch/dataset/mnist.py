"""MNIST (LeCun et al., 1998), Fashion-MNIST (Xiao et al., 2017) and, offline, a sample of MNIST."""

from functools import partial
from pathlib import Path

from common.data import Split, or_stand_in, stratified_split

from . import idx
from .mnist_sample import NOTICE, sample

VALIDATION_SIZE = 5_000  # and a sixth of small files of the same layout
FILES = {  # name -> shape: images (N, H, W) and their labels (N,), a byte each
    "train": {"train-images-idx3-ubyte": (60_000, 28, 28), "train-labels-idx1-ubyte": (60_000,)},
    "test": {"t10k-images-idx3-ubyte": (10_000, 28, 28), "t10k-labels-idx1-ubyte": (10_000,)},
}
FOLDERS = {"mnist": "MNIST/raw", "fashion-mnist": "FashionMNIST/raw"}
CLASSES = {
    "mnist": list("0123456789"),
    "mnist-sample": list("0123456789"),
    "fashion-mnist": ["T-shirt", "trouser", "pullover", "dress", "coat",
                      "sandal", "shirt", "sneaker", "bag", "ankle boot"],
}  # fmt: skip
MEAN_STD = {  # of the training pixels, in [0, 1]
    "mnist": (0.1307, 0.3081),
    "mnist-sample": (0.1307, 0.3081),
    "fashion-mnist": (0.2860, 0.3530),
}


def load_training(dataset: str, folder: Path, data_dir: str | None) -> tuple[Split, Split]:
    """The training and validation splits: uint8 images (N, 1, 28, 28), labels (N,) int64."""
    everything = load(dataset, "train", folder, data_dir)
    size = 500 if dataset == "mnist-sample" else min(VALIDATION_SIZE, len(everything) // 6)
    rows, held_out = stratified_split(everything.labels, size)
    return everything.take(rows), everything.take(held_out)


def load_test(dataset: str, folder: Path, data_dir: str | None) -> Split:
    """The test split, for test.py alone."""
    return load(dataset, "test", folder, data_dir)


def load(dataset: str, split: str, folder: Path, data_dir: str | None) -> Split:
    """One of the two official splits, or of the sample's. Raises UserError naming a bad file."""
    if dataset == "mnist-sample":
        train, test = sample()
        return train if split == "train" else test
    raw = find_files(dataset, folder, data_dir)
    return idx.load(raw, FILES[split], dataset, CLASSES[dataset])


def find_files(dataset: str, folder: Path, data_dir: str | None) -> Path:
    """The folder with the four files, downloaded if they lie nowhere; or raises DataMissing."""
    return idx.find(dataset, FOLDERS[dataset], folder, data_dir)


def or_sample(dataset: str, named: bool, folder: Path, data_dir: str | None) -> str:
    """`dataset` if it can be had; else, unless the user named it, "mnist-sample", said loudly."""
    if dataset != "mnist":
        return dataset
    found = partial(find_files, dataset, folder, data_dir)
    return or_stand_in(dataset, named, found, "mnist-sample", NOTICE)
