"""This folder's pictures: filters and feature maps."""

from pathlib import Path

from torch import Tensor

from common.plots import draw_images, new_figure, save


def draw_filters(path: Path, weight: Tensor, title: str) -> None:
    """The first layer's kernels, averaged over their input channels: (O, C, k, k)."""
    captions = [f"filter {o}" for o in range(1, len(weight) + 1)]
    draw_images(
        path, weight.mean(1), captions, f"{title}: filters of the first convolution (bright: high)"
    )


def draw_feature_maps(path: Path, image: Tensor, stages: list[Tensor], title: str) -> None:
    """One image (H, W) and, a row per stage, its first feature maps (C, H', W')."""
    columns = 12
    figure, axes = new_figure(1 + len(stages), columns, (12, 1.25 * (1 + len(stages))))
    for axis in axes.flat:
        axis.axis("off")
    axes[0, 0].imshow(image.cpu().numpy(), cmap="gray")
    axes[0, 0].set_title("input", fontsize=8)
    for row, maps in enumerate(stages, start=1):
        for axis, feature_map in zip(axes[row], maps.cpu(), strict=False):
            axis.imshow(feature_map.numpy(), cmap="viridis")
        shown = f"{min(columns, len(maps))} of {len(maps)} maps"
        axes[row, 0].set_title(f"block {row}: {shown}", fontsize=8, loc="left")
    figure.suptitle(f"{title}: feature maps (bright: high; each in its own range)")
    save(figure, path)
