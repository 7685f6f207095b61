"""The image datasets that ResNet and ViT share, as uint8 pixels; normalisation."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from common import cifar, coloured_shapes, distributed, idx, image_folder
from common.data import DataMissing, Split
from common.device import autocast
from common.errors import UserError

AT_ONCE = 1_000  # images of up to 64 x 64 pixels that are evaluated at the same time
MEAN_STD = {  # of the training pixels of each channel, in [0, 1]
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)),
    "folder": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),  # ImageNet's
    "mnist": ((0.1307,), (0.3081,)),
    "fashion-mnist": ((0.2860,), (0.3530,)),
    "shapes": ((0.45, 0.45, 0.45), (0.2, 0.2, 0.2)),
}


def or_shapes(dataset: str, named: bool, folder: Path, data_dir: str | None) -> str:
    """`dataset` if it can be had; else, unless the user named it, "shapes", said loudly."""
    if dataset not in cifar.SETS:
        return dataset
    try:
        cifar.find_root(dataset, folder, data_dir)
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


def of_digits(data: idx.Images, dataset: str) -> Split:
    return Split(data.images[:, None], data.labels, idx.CLASSES[dataset], data.checksums)


def load_training(args: argparse.Namespace, folder: Path) -> tuple[Split, Split]:
    """The training and validation splits: uint8 images (N, C, H, W), labels (N,)."""
    image_folder.check_size_flag(args)
    dataset, data_dir = args.dataset, args.data_dir
    if dataset in cifar.SETS:
        return cifar.load_training(dataset, folder, data_dir)
    if dataset in idx.FOLDERS:
        train, validation = idx.load_training(dataset, folder, data_dir)
        return of_digits(train, dataset), of_digits(validation, dataset)
    if dataset == "folder":
        return image_folder.load_training(data_dir, args.image_size)
    return coloured_shapes.make("train"), coloured_shapes.make("validation")


def load_test(args: argparse.Namespace, folder: Path) -> Split:
    """The test split, for test.py alone."""
    dataset, data_dir = args.dataset, args.data_dir
    if dataset in cifar.SETS:
        return cifar.load(dataset, False, folder, data_dir)
    if dataset in idx.FOLDERS:
        return of_digits(idx.load_test(dataset, folder, data_dir), dataset)
    if dataset == "folder":
        return image_folder.load_test(data_dir, args.image_size)
    return coloured_shapes.make("test")


def check_batch(build: Callable, args: argparse.Namespace, train: Split) -> None:
    """Raises UserError when a batch cannot be dealt out evenly to the processes and the parts that
    it is computed in, or when the network that `build` makes cannot learn such a part."""
    N = distributed.check_batch(min(args.batch_size, len(train)), args.accumulate)
    try:
        with torch.device("meta"):  # shapes alone
            build().train(not args.freeze)(torch.empty(N, *train.shape))
    except (RuntimeError, ValueError) as error:
        H, W = train.shape[1:]
        raise UserError(
            f"--model {args.model} cannot learn batches of {N} images of {H} x {W} pixels "
            f"({str(error).splitlines()[0][:200]}): raise --batch-size or --image-size"
        ) from None


@torch.no_grad()
def predict_all(model: nn.Module, data: Split, args: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """Logits (N, K) in float32 and labels (N,) of a whole split; of several processes, a share."""
    model.eval()
    normalize, none = Normalize(args.dataset, data.labels.device), data.labels[:0]
    logits, labels = [none.new_empty(0, len(data.classes)).float()], [none]  # a share may be empty
    H, W = data.shape[1:]
    for images, batch_labels in data.in_order(max(1, min(AT_ONCE, AT_ONCE * 64**2 // (H * W)))):
        images = normalize(images)
        with autocast(images.device, args.precision):
            outputs = model(images).float()  # a mean in bfloat16 would make ties
            if args.flip_test:
                outputs = (outputs + model(images.flip(3)).float()) / 2
        logits.append(outputs)
        labels.append(batch_labels)
    return torch.cat(logits), torch.cat(labels)


class Normalize:
    """uint8 pixels -> float pixels in [0, 1] -> about zero mean and unit variance per channel."""

    def __init__(self, dataset: str, device: torch.device):
        mean, std = (torch.tensor(values, device=device) for values in MEAN_STD[dataset])
        self.mean, self.std = mean.view(1, -1, 1, 1), std.view(1, -1, 1, 1)

    def __call__(self, images: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H, W) float32
        return (to_float(images) - self.mean) / self.std


def to_float(images: Tensor) -> Tensor:
    """Pixels in [0, 1]."""
    return images.float() / 255 if images.dtype == torch.uint8 else images
