"""This folder's pictures: positions, and what the stem looks for."""

from pathlib import Path

import torch
from torch import Tensor

from common.plots import draw_images, new_figure, save
from ViT.utils.overlays import kernel_pictures


def draw_positions(path: Path, positions: Tensor, side: int, title: str, most: int = 14) -> None:
    """Cosine similarity of each place's embedding (side², D) to all others: a tile per place.

    As in figure 7 of the paper. Of large grids, every so many-th place has a tile.
    """
    unit = torch.nn.functional.normalize(positions.detach().cpu().float(), dim=1)
    similarity = (unit @ unit.T).view(side, side, side, side)
    low = similarity.min().item()
    shown = torch.linspace(0, side - 1, min(side, most)).round().long()
    figure, axes = new_figure(len(shown), len(shown), (6.5, 6))
    for y, row in zip(shown, axes, strict=True):
        for x, axis in zip(shown, row, strict=True):
            picture = axis.imshow(similarity[y, x].numpy(), cmap="viridis", vmin=low, vmax=1)
            axis.set_xticks([])
            axis.set_yticks([])
    figure.colorbar(picture, ax=axes, label="cosine similarity", shrink=0.8)
    figure.suptitle(f"{title}: similarity of the position embeddings")
    figure.supxlabel("column of the patch")
    figure.supylabel("row of the patch")
    save(figure, path)


def draw_filters(path: Path, weight: Tensor, title: str, most: int = 64) -> None:
    """What the first layer looks for: kernels (O, C, k, k), each scaled to its own range.

    Of more filters than one can look at, those of patches: their principal components, as in
    figure 7 of the paper.
    """
    weight, what, columns = weight.detach().cpu().float(), "kernels of the first convolution", 12
    if len(weight) > most:
        flat = weight.flatten(1)
        _, _, directions = torch.linalg.svd(flat - flat.mean(0), full_matrices=False)
        weight = directions[:28].view(-1, *weight.shape[1:])
        what, columns = "principal components of the patch filters", 7
    pictures = kernel_pictures(weight)
    captions = [f"{number}" for number in range(1, len(pictures) + 1)]
    draw_images(path, pictures, captions, f"{title}: {what}", columns)
