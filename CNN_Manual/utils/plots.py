"""This folder's pictures: filters, feature maps, the worst mistakes."""

from pathlib import Path

import matplotlib.pyplot as plt
from torch import Tensor

from common.data import Split
from common.plots import draw_images, save


def draw_worst_mistakes(
    path: Path, data: Split, logits: Tensor, title: str, most: int = 24
) -> None:
    """The wrongly classified images (N, 1, H, W) that the network is surest of."""
    log_probs = logits - logits.logsumexp(1, keepdim=True)
    confidence, predictions = log_probs.exp().max(1)
    wrong = (predictions != data.labels).nonzero().squeeze(1)
    worst = wrong[confidence[wrong].argsort(descending=True)][:most]
    captions = [
        f"{data.classes[data.labels[n]]}, taken for\n{data.classes[predictions[n]]} "
        f"({confidence[n]:.0%})"
        for n in worst
    ]
    draw_images(
        path, data.inputs[worst, 0], captions, f"{title}: {len(wrong)} mistakes, the surest first"
    )


def draw_filters(path: Path, weight: Tensor, title: str) -> None:
    """The first layer's kernels, averaged over their input channels: (O, C, k, k)."""
    captions = [f"filter {o}" for o in range(len(weight))]
    draw_images(path, weight.mean(1), captions, f"{title}: filters of the first convolution")


def draw_feature_maps(path: Path, image: Tensor, stages: list[Tensor], title: str) -> None:
    """One image (H, W) and, a row per stage, its first feature maps (C, H', W')."""
    columns = 12
    figure, axes = plt.subplots(1 + len(stages), columns, figsize=(12, 1.25 * (1 + len(stages))))
    for axis in axes.flat:
        axis.axis("off")
    axes[0, 0].imshow(image.cpu(), cmap="gray")
    axes[0, 0].set_title("input", fontsize=8)
    for row, maps in enumerate(stages, start=1):
        for axis, feature_map in zip(axes[row], maps.cpu(), strict=False):
            axis.imshow(feature_map, cmap="viridis")
        axes[row, 0].set_title(f"block {row}: {len(maps)} maps", fontsize=8, loc="left")
    figure.suptitle(title)
    save(figure, path)
