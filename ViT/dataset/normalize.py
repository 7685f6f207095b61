"""Pixels as a network reads them: bytes become floats of about zero mean and unit variance."""

import torch
from torch import Tensor

MEAN_STD = {  # of the training pixels of each channel, in [0, 1]
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)),
    "folder": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),  # ImageNet's
    "mnist": ((0.1307,), (0.3081,)),
    "fashion-mnist": ((0.2860,), (0.3530,)),
    "shapes": ((0.45, 0.45, 0.45), (0.2, 0.2, 0.2)),
}


class Normalize:
    """uint8 pixels -> float pixels in [0, 1] -> about zero mean and unit variance per channel."""

    def __init__(self, dataset: str, device: torch.device):
        mean, std = (torch.tensor(values, device=device) for values in MEAN_STD[dataset])
        self.mean, self.std = mean.view(1, -1, 1, 1), std.view(1, -1, 1, 1)

    def __call__(self, images: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H, W)
        return (to_float(images) - self.mean) / self.std


def to_float(images: Tensor) -> Tensor:
    """Pixels in [0, 1], of PyTorch's default dtype."""
    return images.to(torch.get_default_dtype()) / 255 if images.dtype == torch.uint8 else images
