"""The datasets that this folder learns, by the flag's name; what is downloaded lies here too."""

from argparse import Namespace
from functools import partial
from pathlib import Path

import torch

from common.data import Split, or_stand_in
from common.errors import UserError

from . import cifar, coloured_shapes, crops, drawing, image_folder, mnist

FOLDER = Path(__file__).resolve().parent.parent
SIDE = 32  # pixels of an image of CIFAR's, and of a made-up one


def or_shapes(dataset: str, named: bool, data_dir: str | None) -> str:
    """`dataset` if it can be had; else, unless the user named it, "shapes", said loudly."""
    if dataset not in cifar.NAMES:
        return dataset
    notice = (
        "So this run learns MADE-UP coloured shapes instead.\n"
        f"Its results are not comparable with those of {dataset}."
    )
    found = partial(cifar.find_root, dataset, FOLDER, data_dir)
    return or_stand_in(dataset, named, found, "shapes", notice)


def load_training(args: Namespace) -> tuple[Split, Split | None]:
    """The training and validation splits: uint8 images (N, C, H, W), labels (N,).

    With --refit the training split is both together, and there is none to validate on.
    """
    image_folder.check_size_flag(args)
    dataset, data_dir = args.dataset, args.data_dir
    if dataset == "folder":
        train, validation = image_folder.load_training(data_dir, args.image_size, args.refit)
        if len(train.classes) < 2:
            raise UserError(f"{data_dir}: train/ has one class, {train.classes[0]}; two are needed")
        return train, validation
    if dataset in cifar.NAMES:
        train, validation = cifar.load_training(dataset, FOLDER, data_dir)
    elif dataset in mnist.FOLDERS:
        train, validation = mnist.load_training(dataset, FOLDER, data_dir)
    else:
        train, validation = coloured_shapes.make("train"), coloured_shapes.make("validation")
    if args.refit:
        inputs = torch.cat([train.inputs, validation.inputs])
        labels = torch.cat([train.labels, validation.labels])
        return Split(inputs, labels, train.classes, train.checksums), None
    return train, validation


def load_test(args: Namespace) -> Split:
    """The test split, for test.py alone."""
    dataset, data_dir = args.dataset, args.data_dir
    if dataset in cifar.NAMES:
        return cifar.load(dataset, False, FOLDER, data_dir)
    if dataset in mnist.FOLDERS:
        return mnist.load_test(dataset, FOLDER, data_dir)
    if dataset == "folder":
        return image_folder.load_test(data_dir, args.image_size)
    return coloured_shapes.make("test")


def load_pictures(files: list[Path], args: Namespace, classes: list[str]) -> Split:
    """Pictures of your own, made like those of the run's dataset: uint8 images (N, C, H, W). The
    labels are all 0."""
    if args.dataset in mnist.FOLDERS:
        images = [drawing.prepare(file, args.dataset) for file in files]
    else:
        size = args.image_size or SIDE
        if args.dataset == "folder" and not args.image_size:
            size = image_folder.natural_size(image_folder.find_splits(args.data_dir)["train"])
        images = [crops.fit(file, size) for file in files]
    return Split(torch.stack(images), torch.zeros(len(files)).long(), classes, {})
