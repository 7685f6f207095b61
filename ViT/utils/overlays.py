"""Kernels as pictures, and images beside what a network looked at in them."""

from pathlib import Path

from torch import Tensor

from common.plots import new_figure, save


def kernel_pictures(weight: Tensor) -> Tensor:
    """Kernels (n, C, k, k), each scaled to its own range: (n, k, k, 3), or (n, k, k) of grey."""
    weight = weight.detach().cpu().float()
    low = weight.amin(dim=(1, 2, 3), keepdim=True)
    high = weight.amax(dim=(1, 2, 3), keepdim=True)
    return ((weight - low) / (high - low).clamp(min=1e-12)).permute(0, 2, 3, 1).squeeze(3)


def draw_overlays(
    path: Path, pictures: Tensor, maps: Tensor, captions: list[str], title: str, colours: str
) -> None:
    """Images (n, H, W[, 3]) in [0, 1], each above a grey version seen through its map (n, H, W)."""
    columns = min(8, len(pictures))
    rows = -(-len(pictures) // columns)
    figure, axes = new_figure(2 * rows, columns, (1.5 * columns, 3.4 * rows))
    for axis in axes.flat:
        axis.axis("off")
    for n, (picture, places, caption) in enumerate(zip(pictures, maps, captions, strict=True)):
        row, column = 2 * (n // columns), n % columns
        grey = picture.cpu() if picture.dim() == 2 else picture.cpu().mean(2)
        axes[row, column].imshow(picture.cpu().numpy(), cmap="gray", vmin=0, vmax=1)
        axes[row, column].set_title(caption, fontsize=7)
        axes[row + 1, column].imshow(grey.numpy(), cmap="gray", vmin=0, vmax=1)
        seen = axes[row + 1, column].imshow(
            places.cpu().numpy(), cmap=colours, alpha=0.5, vmin=0, vmax=1
        )
    figure.colorbar(seen, ax=axes, label="of the largest value", shrink=0.5)
    figure.suptitle(title)
    save(figure, path)
