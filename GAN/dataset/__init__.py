"""The datasets that this folder learns; what is downloaded lies here too."""

from argparse import Namespace
from pathlib import Path

import torch
from torch import Tensor

from common.data import Split

from . import image_folder, mnist, ring

FOLDER = Path(__file__).resolve().parent.parent


def load_training(args: Namespace) -> tuple[Split, Split]:
    """The training and validation splits: uint8 images (N, C, H, W) or points (N, 2)."""
    image_folder.check_size_flag(args)
    if args.dataset == "ring":
        return ring.make("train"), ring.make("validation")
    if args.dataset == "folder":
        fit = image_folder.fit  # not cropped: a generator is to draw whole pictures
        return image_folder.load_training(args.data_dir, args.image_size, transform=fit)
    return mnist.load_training(args.dataset, FOLDER, args.data_dir)


def load_test(args: Namespace) -> Split:
    """The test split, for test.py alone."""
    if args.dataset == "ring":
        return ring.make("test")
    if args.dataset == "folder":
        return image_folder.load_test(args.data_dir, args.image_size)
    return mnist.load_test(args.dataset, FOLDER, args.data_dir)


def scaled(data: Tensor) -> Tensor:
    """Pixels 0 … 255 -> [-1, 1], where tanh ends; points stay as they are."""
    return data.to(torch.get_default_dtype()) / 127.5 - 1 if data.dim() == 4 else data


def to_float(images: Tensor) -> Tensor:
    """Pixels in [0, 1], of PyTorch's default dtype."""
    return images.to(torch.get_default_dtype()) / 255 if images.dtype == torch.uint8 else images


def as_data(samples: Tensor) -> Tensor:
    """The inverse of `scaled`: pixels are rounded to bytes, as those of real images are."""
    if samples.dim() == 4:
        return ((samples.float() + 1) * 127.5).round().clamp(0, 255).byte()
    return samples.float()
