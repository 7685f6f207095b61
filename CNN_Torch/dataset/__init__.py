"""The datasets that this folder learns, by the flag's name; what is downloaded lies here too."""

from pathlib import Path

import torch

from common.data import Split

from . import drawing, mnist, shapes

FOLDER = Path(__file__).resolve().parent.parent


def standardised(data: Split, name: str) -> Split:
    """Images of one channel of about zero mean and unit variance."""
    mean, std = mnist.MEAN_STD[name]
    inputs = data.inputs.float().div_(255).sub_(mean).div_(std)  # (N, 1, 28, 28)
    return Split(inputs, data.labels, data.classes, data.checksums)


def load_training(name: str, data_dir: str | None = None) -> tuple[Split, Split]:
    """The training and validation splits: images (N, 1, H, W) float32, labels (N,) int64."""
    if name == "shapes":
        return shapes.load_training(name, data_dir)
    train, validation = mnist.load_training(name, FOLDER, data_dir)
    return standardised(train, name), standardised(validation, name)


def load_test(name: str, data_dir: str | None = None) -> Split:
    """The test split, for test.py alone."""
    if name == "shapes":
        return shapes.load_test(name, data_dir)
    return standardised(mnist.load_test(name, FOLDER, data_dir), name)


def load_pictures(files: list[Path], name: str, classes: list[str]) -> Split:
    """Pictures of your own, made like those of the dataset; the labels are all 0."""
    images, labels = torch.stack([drawing.prepare(f, name) for f in files]), torch.zeros(len(files))
    data = Split(images, labels.long(), classes, {})
    return shapes.standardised(data) if name == "shapes" else standardised(data, name)
