"""Random changes to whole batches of images, on their device, by kornia."""

import argparse
import warnings
from argparse import BooleanOptionalAction

import torch
from torch import Tensor
from torch.nn import functional as F

from common import cli
from common.errors import UserError
from ViT.dataset.normalize import to_float

GREY = 0.45
OFF = dict(
    crop=0, flip=False, alternate_flip=False, colour=0.0, cutout=0, mixup=0.0, cutmix=0.0,
)  # fmt: skip


def add_flags(parser: cli.Parser) -> None:
    add = parser.add_argument
    add("--crop", type=cli.natural, help="augmentation: pad by so many pixels, cut out at random")
    add("--flip", action=BooleanOptionalAction, help="augmentation: mirror half of the images")
    add("--alternate-flip", action=BooleanOptionalAction, help="with --flip: in every other epoch")
    add("--colour", type=cli.fraction, help="augmentation: brightness, contrast, saturation ± this")
    add("--cutout", type=cli.natural, help="augmentation: side of a square painted grey")
    add(
        "--mixup", type=cli.fraction, help="augmentation: share of batches whose images are blended"
    )
    add("--cutmix", type=cli.fraction, help="augmentation: share of batches with parts exchanged")


def first_sides(size: int, seed: int) -> Tensor:
    """(N,) 0 or 1 at random: whether `alternate_flip` mirrors an image in the first epoch."""
    return torch.randint(2, (size,), generator=torch.Generator().manual_seed(seed))


class Augmentation:
    """What the flags ask for: pad-crop and flips (as in He et al., 2015, section 4.2), colour,
    cutout (DeVries & Taylor, 2017), mixup (Zhang et al., 2017), cutmix (Yun et al., 2019).

    With `alternate_flip`, an image is mirrored in every other epoch, and not at random: so two
    epochs in a row show both of its sides (Jordan, 2024, arXiv:2404.00498, section 3.6).

    The shares of mixup and of cutmix are uniform on (0, 1); a batch has one of the two or none.
    """

    def __init__(self, args: argparse.Namespace, image_size: int, num_classes: int):
        import kornia.augmentation as K  # slow to import

        if args.mixup + args.cutmix > 1:
            raise UserError("--mixup and --cutmix are shares of the batches: together at most 1")
        if args.crop >= image_size:
            needs = f"images of more than {args.crop} pixels a side"
            raise UserError(f"--crop {args.crop} needs {needs}, and these have {image_size}")
        self.num_classes, self.mixup, self.cutmix = num_classes, args.mixup, args.cutmix
        self.changes = []
        if args.crop:
            size = (image_size, image_size)
            crop = K.RandomCrop(size, args.crop, padding_mode="reflect", cropping_mode="slice")
            self.changes.append(crop)
        self.alternate = args.flip and args.alternate_flip
        if args.flip and not self.alternate:
            self.changes.append(K.RandomHorizontalFlip(p=0.5))
        if args.colour:
            self.changes.append(K.ColorJitter(args.colour, args.colour, args.colour, p=1.0))
        if args.cutout:
            share = min(1.0, args.cutout / image_size) ** 2
            square = dict(scale=(share, share), ratio=(1.0, 1.0), value=GREY)
            self.changes.append(K.RandomErasing(p=1.0, **square))
        self.blend = K.RandomMixUpV2(data_keys=["input", "class"])
        with warnings.catch_warnings():  # we mean the share of the other image, as in mixup
            warnings.simplefilter("ignore", DeprecationWarning)
            self.paste = K.RandomCutMixV2(data_keys=["input", "class"], use_correct_lambda=False)

    @torch.no_grad()
    def __call__(
        self, images: Tensor, labels: Tensor, turns: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Pixels (N, C, H, W), labels (N,) -> pixels in [0, 1], and labels or, where images were
        mixed, the share of each class (N, K). `turns` (N,) is the epoch plus the side, 0 or 1,
        that an image shows first: where it is odd, `alternate_flip` mirrors."""
        images = to_float(images)
        if self.alternate:
            odd = (turns % 2 == 1).to(images.device)[:, None, None, None]
            images = torch.where(odd, images.flip(3), images)
        for change in self.changes:
            images = change(images)
        if not self.mixup and not self.cutmix:
            return images, labels
        draw = torch.rand(()).item()
        if draw < self.mixup:
            images, mixed = self.blend(images, labels)
        elif draw < self.mixup + self.cutmix:
            images, mixed = self.paste(images, labels)
        else:
            return images, labels
        own, other, share = mixed.view(-1, 3).unbind(1)  # share: of the other image
        own, other = (F.one_hot(n.long(), self.num_classes) for n in (own, other))
        return images, own * (1 - share[:, None]) + other * share[:, None]
