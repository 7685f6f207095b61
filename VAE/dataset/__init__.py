"""The datasets that this folder learns, as bytes; what is downloaded lies here too."""

from argparse import Namespace
from pathlib import Path

import torch

from common.data import Split

from . import coloured_shapes, image_folder, mnist

FOLDER = Path(__file__).resolve().parent.parent


def load_training(args: Namespace) -> tuple[Split, Split | None]:
    """The training and validation splits: uint8 images (N, C, H, W), labels (N,) int64.

    With --refit the training split is both together, and there is none to validate on.
    """
    image_folder.check_size_flag(args)
    if args.dataset == "folder":
        fit = image_folder.fit  # not cropped: whole pictures are what is learned and tested
        return image_folder.load_training(args.data_dir, side(args), args.refit, transform=fit)
    if args.dataset == "shapes":
        train, validation = coloured_shapes.make("train"), coloured_shapes.make("validation")
    else:
        train, validation = mnist.load_training(args.dataset, FOLDER, args.data_dir)
    if args.refit:
        inputs = torch.cat([train.inputs, validation.inputs])
        labels = torch.cat([train.labels, validation.labels])
        return Split(inputs, labels, train.classes, train.checksums), None
    return train, validation


def load_validation(args: Namespace) -> Split:
    """Images that a run may look at: also of a run with --refit, which has learned them too."""
    return load_training(Namespace(**{**vars(args), "refit": False}))[1]


def side(args: Namespace) -> int:
    """Of the images of a folder, in pixels. By themselves small ones keep their size, and others
    get the largest small one: a decoder makes every pixel of them."""
    if args.image_size:
        return args.image_size
    files = image_folder.find_splits(args.data_dir)["train"]
    return min(image_folder.natural_size(files), image_folder.SMALL)


def load_test(args: Namespace) -> Split:
    """The test split, for test.py alone."""
    if args.dataset == "folder":
        return image_folder.load_test(args.data_dir, side(args))
    if args.dataset == "shapes":
        return coloured_shapes.make("test")
    return mnist.load_test(args.dataset, FOLDER, args.data_dir)


def no_images(args: Namespace) -> Split:
    """What a network is built for: the shape and classes of a dataset, and no images."""
    shape, classes = (1, 28, 28), mnist.CLASSES.get(args.dataset)
    if args.dataset == "shapes":
        shape, classes = (3, coloured_shapes.SIZE, coloured_shapes.SIZE), coloured_shapes.CLASSES
    elif args.dataset == "folder":
        classes = image_folder.find_splits(args.data_dir)["train"].classes
        pixels = side(args)
        shape = (3, pixels, pixels)
    images = torch.empty(0, *shape, dtype=torch.uint8)
    return Split(images, torch.empty(0, dtype=torch.int64), classes, {})
