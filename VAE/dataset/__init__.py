"""The datasets that this folder learns, as bytes; what is downloaded lies here too."""

from pathlib import Path

import torch

from common.data import Split

from . import coloured_shapes, mnist

FOLDER = Path(__file__).resolve().parent.parent


def load_training(
    name: str, data_dir: str | None = None, refit: bool = False
) -> tuple[Split, Split | None]:
    """The training and validation splits: uint8 images (N, C, H, W), labels (N,) int64.

    With `refit` the training split is both together, and there is none to validate on.
    """
    if name == "shapes":
        train, validation = coloured_shapes.make("train"), coloured_shapes.make("validation")
    else:
        train, validation = mnist.load_training(name, FOLDER, data_dir)
    if refit:
        inputs = torch.cat([train.inputs, validation.inputs])
        labels = torch.cat([train.labels, validation.labels])
        return Split(inputs, labels, train.classes, train.checksums), None
    return train, validation


def load_test(name: str, data_dir: str | None = None) -> Split:
    """The test split, for test.py alone."""
    if name == "shapes":
        return coloured_shapes.make("test")
    return mnist.load_test(name, FOLDER, data_dir)


def no_images(name: str) -> Split:
    """What a network is built for: the shape and classes of a dataset, and no images."""
    shape, classes = (1, 28, 28), mnist.CLASSES.get(name)
    if name == "shapes":
        shape, classes = (3, coloured_shapes.SIZE, coloured_shapes.SIZE), coloured_shapes.CLASSES
    images = torch.empty(0, *shape, dtype=torch.uint8)
    return Split(images, torch.empty(0, dtype=torch.int64), classes, {})
