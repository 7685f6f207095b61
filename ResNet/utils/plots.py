"""This folder's pictures: filters, and where the network looks."""

from pathlib import Path

import matplotlib.pyplot as plt
from torch import Tensor

from common.plots import draw_images, save


def draw_filters(path: Path, weight: Tensor, title: str, most: int = 64) -> None:
    """The first convolution's kernels (O, C, k, k), each scaled to its own range."""
    weight = weight[:most].detach().cpu()
    low = weight.amin(dim=(1, 2, 3), keepdim=True)
    high = weight.amax(dim=(1, 2, 3), keepdim=True)
    pictures = (weight - low) / (high - low).clamp(min=1e-12)
    pictures = pictures.permute(0, 2, 3, 1).squeeze(3)  # (O, k, k, 3), or (O, k, k) for grey
    captions = [f"filter {number}" for number in range(len(pictures))]
    draw_images(path, pictures, captions, f"{title}: filters of the first convolution", columns=12)


def draw_cams(path: Path, pictures: Tensor, cams: Tensor, captions: list[str], title: str) -> None:
    """Images (n, H, W[, 3]) in [0, 1], each with its map (n, H, W) laid over a grey version."""
    columns = min(8, len(pictures))
    rows = -(-len(pictures) // columns)
    figure, axes = plt.subplots(
        2 * rows, columns, figsize=(1.5 * columns, 3.4 * rows), squeeze=False
    )
    for axis in axes.flat:
        axis.axis("off")
    for n, (picture, cam, caption) in enumerate(zip(pictures, cams, captions, strict=True)):
        row, column = 2 * (n // columns), n % columns
        axes[row, column].imshow(picture.cpu().numpy(), cmap="gray")
        axes[row, column].set_title(caption, fontsize=7)
        grey = picture.cpu() if picture.dim() == 2 else picture.cpu().mean(2)
        axes[row + 1, column].imshow(grey.numpy(), cmap="gray", vmin=0, vmax=1)
        axes[row + 1, column].imshow(cam.cpu().numpy(), cmap="jet", alpha=0.45, vmin=0, vmax=1)
    figure.suptitle(f"{title}: what speaks for the predicted class (Grad-CAM)")
    figure.tight_layout()
    save(figure, path)
