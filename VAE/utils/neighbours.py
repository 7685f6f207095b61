"""What is near an image in the space of codes, or of pixels. N images, J numbers in a code."""

from pathlib import Path

import torch
from torch import Tensor

from common.data import Split
from common.plots import new_figure, save
from VAE.utils.mosaic import mosaic

SHOWN, COUNT = 6, 8  # images in the picture, and neighbours of each


def nearest(codes: Tensor, known: Tensor, count: int) -> Tensor:
    """The rows of the nearest of `known` (M, J), by Euclid, to each of `codes` (N, J): (N, count),
    nearest first. Where M is less than `count`, all of them."""
    count = min(count, len(known))
    parts = [torch.cdist(part, known) for part in codes.split(1_000)]
    return torch.cat([part.topk(count, largest=False).indices for part in parts])


def shown_rows(data: Split) -> Tensor:
    """The first image of each of some classes."""
    firsts = [(data.labels == label).nonzero()[0] for label in data.labels.unique()]
    return torch.cat(firsts)[torch.linspace(0, len(firsts) - 1, min(SHOWN, len(firsts))).long()]


def neighbours(codes: Tensor, known_codes: Tensor, data: Split, known: Split) -> dict:
    """The share of images whose nearest neighbour is of their class; the rows of some images'."""
    near = nearest(codes, known_codes, COUNT)
    same = (known.labels[near[:, 0]] == data.labels).float().mean().item()
    return {"same_class": same, "neighbours": near[shown_rows(data)].tolist()}


def draw_neighbours(path: Path, found: dict[str, list], data: Split, known: Split) -> None:
    """An image, left, and its nearest neighbours, the nearest first: a panel for each title in
    `found`, with the rows of `neighbours`."""
    figure, axes = new_figure(1, len(found), (4.4 * len(found), 3.4))
    for axis, (title, near) in zip(axes.flat, found.items(), strict=True):
        images = [torch.cat([data.inputs[row][None], known.inputs[others]])
                  for row, others in zip(shown_rows(data), near, strict=True)]  # fmt: skip
        sheet = mosaic(torch.cat(images).float() / 255, len(images[0]))
        axis.imshow(sheet.cpu().numpy(), cmap="gray", vmin=0, vmax=1)
        axis.axis("off")
        axis.set_title(title)
    save(figure, path)
