"""This folder's own picture: the filters of the first convolution."""

from pathlib import Path

from torch import Tensor

from common.plots import draw_images
from ResNet.utils.overlays import kernel_pictures


def draw_filters(path: Path, weight: Tensor, title: str, most: int = 64) -> None:
    """The first convolution's kernels (O, C, k, k), each scaled to its own range."""
    pictures = kernel_pictures(weight[:most])
    captions = [f"filter {number}" for number in range(1, len(pictures) + 1)]
    draw_images(path, pictures, captions, f"{title}: filters of the first convolution", 12)
