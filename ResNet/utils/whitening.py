"""Which images a network's first convolution is computed from."""

import torch
from torch import nn

from common.data import Split
from ResNet.dataset.normalize import Normalize
from ResNet.model import FastResNet


def whiten(model: nn.Module, train: Split, normalize: Normalize) -> None:
    """`model.whiten` by 5,000 images of 32 x 32 pixels, or as many pixels of larger ones, spread
    over the split: a folder's lie class by class. Other networks than FastResNet have no need."""
    if isinstance(model, FastResNet):
        C, H, W = train.shape
        some = min(len(train), max(1, 5_000 * 32**2 // (H * W)))
        rows = torch.linspace(0, len(train) - 1, some).long()
        model.whiten(normalize(train.images(rows)))
