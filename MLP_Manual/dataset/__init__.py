"""The datasets that this folder learns, by the flag's name; what is downloaded lies here too."""

from pathlib import Path

import torch

from common.data import Split

from . import drawing, mnist, spirals

FOLDER = Path(__file__).resolve().parent.parent


def standardised(data: Split, name: str) -> Split:
    """Rows of 784 pixels of about zero mean and unit variance."""
    mean, std = mnist.MEAN_STD[name]
    inputs = data.inputs.flatten(1).float()  # (N, 1, 28, 28) -> (N, 784)
    inputs = inputs.div_(255).sub_(mean).div_(std)
    return Split(inputs, data.labels, data.classes, data.checksums)


def load_training(name: str, data_dir: str | None = None) -> tuple[Split, Split]:
    """The training and validation splits: inputs (N, D) float32, labels (N,) int64."""
    if name == "spirals":
        return spirals.load_training(name, data_dir)
    train, validation = mnist.load_training(name, FOLDER, data_dir)
    return standardised(train, name), standardised(validation, name)


def load_test(name: str, data_dir: str | None = None) -> Split:
    """The test split, for test.py alone."""
    if name == "spirals":
        return spirals.load_test(name, data_dir)
    return standardised(mnist.load_test(name, FOLDER, data_dir), name)


def load_pictures(files: list[Path], name: str, classes: list[str]) -> Split:
    """Pictures of your own, made like those of the dataset; the labels are all 0."""
    images = torch.stack([drawing.prepare(file, name) for file in files])
    return standardised(Split(images, torch.zeros(len(files)).long(), classes, {}), name)
