"""The datasets that this folder learns, as bytes; what is downloaded lies here too."""

from argparse import Namespace
from pathlib import Path

import torch

from common.data import Split

from . import coloured_shapes, image_folder, mnist
from .crops import random_crop
from .image_folder import Files

FOLDER = Path(__file__).resolve().parent.parent


def load_training(args: Namespace) -> tuple[Split, Split | None]:
    """The training and validation splits: uint8 images (N, C, H, W), labels (N,) int64.

    With --refit the training split is both together, and there is none to validate on.
    """
    image_folder.check_size_flag(args)
    if args.dataset == "folder":
        if args.refit:
            return load_both(args.data_dir, args.image_size), None
        return image_folder.load_training(args.data_dir, args.image_size)
    if args.dataset == "shapes":
        train, validation = coloured_shapes.make("train"), coloured_shapes.make("validation")
    else:
        train, validation = mnist.load_training(args.dataset, FOLDER, args.data_dir)
    if args.refit:
        inputs = torch.cat([train.inputs, validation.inputs])
        labels = torch.cat([train.labels, validation.labels])
        return Split(inputs, labels, train.classes, train.checksums), None
    return train, validation


def load_both(data_dir: str | None, size: int | None) -> Split:
    """What a folder of images has for training and for validation, as one split."""
    files = image_folder.find_splits(data_dir)
    parts = [files[name] for name in ("train", "validation") if name in files]
    paths = [path for part in parts for path in part.paths]
    whole = Files(paths, torch.cat([part.labels for part in parts]), parts[0].classes)
    size = size or image_folder.natural_size(files["train"])
    return image_folder.load(whole, "train and val", size, random_crop)


def load_test(args: Namespace) -> Split:
    """The test split, for test.py alone."""
    if args.dataset == "folder":
        return image_folder.load_test(args.data_dir, args.image_size)
    if args.dataset == "shapes":
        return coloured_shapes.make("test")
    return mnist.load_test(args.dataset, FOLDER, args.data_dir)


def no_images(args: Namespace) -> Split:
    """What a network is built for: the shape and classes of a dataset, and no images."""
    shape, classes = (1, 28, 28), mnist.CLASSES.get(args.dataset)
    if args.dataset == "shapes":
        shape, classes = (3, coloured_shapes.SIZE, coloured_shapes.SIZE), coloured_shapes.CLASSES
    elif args.dataset == "folder":
        files = image_folder.find_splits(args.data_dir)["train"]
        size = args.image_size or image_folder.natural_size(files)
        shape, classes = (3, size, size), files.classes
    images = torch.empty(0, *shape, dtype=torch.uint8)
    return Split(images, torch.empty(0, dtype=torch.int64), classes, {})
