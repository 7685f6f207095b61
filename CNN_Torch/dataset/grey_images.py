"""MNIST, the sample of it, and Fashion-MNIST, as standardised images of one channel."""

from pathlib import Path

from common import idx
from common.data import Split

FOLDER = Path(__file__).resolve().parent.parent


def prepare(data: idx.Images, name: str) -> Split:
    mean, std = idx.MEAN_STD[name]
    inputs = data.images[:, None].float().div_(255).sub_(mean).div_(std)  # (N, 1, 28, 28)
    return Split(inputs, data.labels, idx.CLASSES[name], data.checksums)


def load_training(name: str, data_dir: str | None) -> tuple[Split, Split]:
    train, validation = idx.load_training(name, FOLDER, data_dir)
    return prepare(train, name), prepare(validation, name)


def load_test(name: str, data_dir: str | None) -> Split:
    return prepare(idx.load_test(name, FOLDER, data_dir), name)
