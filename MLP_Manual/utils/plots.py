"""This folder's pictures: the decision boundary, the first layer's weights, and which pixels an
answer depends on."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from common.data import Split
from common.plots import draw_images, new_figure, save


def draw_decision_boundary(path: Path, forward: Callable, data: Split, title: str) -> None:
    """For inputs in the plane: the probability of the second class, and the points on top."""
    limit, steps = 1.2, 300
    axis_values = torch.linspace(-limit, limit, steps)
    y, x = torch.meshgrid(axis_values, axis_values, indexing="ij")
    grid = torch.stack([x, y], dim=2).view(-1, 2).to(data.inputs.device)  # (steps*steps, 2)
    logits = forward(grid)
    probability = (logits[:, 1] - logits.logsumexp(1)).exp().view(steps, steps).cpu().numpy()

    figure, ((axis,),) = new_figure(size=(5.5, 5))
    extent = (-limit, limit, -limit, limit)
    image = axis.imshow(
        probability, origin="lower", extent=extent, cmap="RdBu_r", vmin=0, vmax=1, alpha=0.7
    )
    axis.contour(x.numpy(), y.numpy(), probability, levels=[0.5], colors="black", linewidths=1)
    points, labels = data.inputs.cpu(), data.labels.cpu()
    for label, color in ((0, "navy"), (1, "darkred")):
        chosen = points[labels == label].numpy()
        axis.scatter(chosen[:, 0], chosen[:, 1], s=4, color=color, label=data.classes[label])
    axis.legend(loc="upper right")
    axis.set(title=title, xlabel="x", ylabel="y")
    figure.colorbar(image, ax=axis, label=f"probability of the {data.classes[1]}", shrink=0.8)
    save(figure, path)


def draw_first_layer(path: Path, weight: Tensor, title: str, most: int = 48) -> None:
    """What the first units look for: their weights (D_out, 784) as images, largest norm first."""
    strongest = weight.norm(dim=1).argsort(descending=True)[:most]
    captions = [f"unit {unit + 1}" for unit in strongest.tolist()]
    draw_images(
        path,
        weight[strongest].view(-1, 28, 28),
        captions,
        f"{title}: first layer (bright: high)",
        columns=12,
    )


def draw_sensitivity(
    path: Path, pictures: Tensor, maps: Tensor, captions: list[str], title: str
) -> None:
    """Pictures (n, H, W), each above its map (n, H, W), which is drawn as shares of its largest
    value."""
    columns = min(4, len(pictures))
    rows = -(-len(pictures) // columns)
    figure, axes = new_figure(2 * rows, columns, (max(4, 1.7 * columns), 3.1 * rows + 0.4))
    for axis in axes.flat:
        axis.axis("off")
    maps = maps / maps.amax(dim=(1, 2), keepdim=True).clamp(min=1e-12)
    for n, (picture, places, caption) in enumerate(zip(pictures, maps, captions, strict=True)):
        row, column = 2 * (n // columns), n % columns
        axes[row, column].imshow(picture.cpu().numpy(), cmap="gray")
        axes[row, column].set_title(caption, fontsize=8)
        image = axes[row + 1, column].imshow(places.cpu().numpy(), cmap="inferno", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="of the largest value", shrink=0.5)
    figure.suptitle(title)
    save(figure, path)
