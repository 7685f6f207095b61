"""The datasets that this folder learns, by the flag's name; what is downloaded lies here too."""

import sys
from argparse import Namespace
from pathlib import Path

from common.data import DataMissing, Split

from . import cifar, coloured_shapes, image_folder, mnist

FOLDER = Path(__file__).resolve().parent.parent


def or_shapes(dataset: str, named: bool, data_dir: str | None) -> str:
    """`dataset` if it can be had; else, unless the user named it, "shapes", said loudly."""
    if dataset not in cifar.SETS:
        return dataset
    try:
        cifar.find_root(dataset, FOLDER, data_dir)
    except DataMissing as error:
        if named:
            raise
        print(
            f"\n*** {error}\n*** So this run learns MADE-UP coloured shapes instead.\n"
            f"*** Its results are not comparable with those of {dataset}.\n",
            file=sys.stderr,
        )
        return "shapes"
    return dataset


def load_training(args: Namespace) -> tuple[Split, Split]:
    """The training and validation splits: uint8 images (N, C, H, W), labels (N,)."""
    image_folder.check_size_flag(args)
    dataset, data_dir = args.dataset, args.data_dir
    if dataset in cifar.SETS:
        return cifar.load_training(dataset, FOLDER, data_dir)
    if dataset in mnist.FOLDERS:
        train, validation = mnist.load_training(dataset, FOLDER, data_dir)
        return mnist.of_digits(train, dataset), mnist.of_digits(validation, dataset)
    if dataset == "folder":
        return image_folder.load_training(data_dir, args.image_size)
    return coloured_shapes.make("train"), coloured_shapes.make("validation")


def load_test(args: Namespace) -> Split:
    """The test split, for test.py alone."""
    dataset, data_dir = args.dataset, args.data_dir
    if dataset in cifar.SETS:
        return cifar.load(dataset, False, FOLDER, data_dir)
    if dataset in mnist.FOLDERS:
        return mnist.of_digits(mnist.load_test(dataset, FOLDER, data_dir), dataset)
    if dataset == "folder":
        return image_folder.load_test(data_dir, args.image_size)
    return coloured_shapes.make("test")
