"""The pictures that several folders draw. Every function writes one PNG file."""

from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # a file, never a window
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.ticker import MaxNLocator  # noqa: E402
from torch import Tensor  # noqa: E402

MAX_TICKS = 8


def save(figure, path: Path) -> None:
    """Write the figure and free it."""
    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)


def draw_curves(path: Path, history: list[dict]) -> None:
    """Losses on the left; accuracy, or whatever else was measured, on the right."""
    epochs = [row["epoch"] for row in history]
    others = [k for k in history[0] if k.startswith("validation_") and k != "validation_loss"]
    figure, axes = plt.subplots(
        1, 1 + len(others), figsize=(5 * (1 + len(others)), 3.6), squeeze=False
    )
    marker = "o" if len(epochs) < 30 else None
    for name, label in (
        ("train_loss", "training (as regularised)"),
        ("validation_loss", "validation"),
    ):
        if name in history[0]:
            values = [row[name] for row in history]
            axes[0, 0].plot(epochs, values, marker=marker, ms=3, label=label)
    axes[0, 0].set(xlabel="epoch", ylabel="loss", title=f"{history[0]['dataset']}: loss")
    axes[0, 0].legend()
    for axis, name in zip(axes[0, 1:], others, strict=True):
        label = name.removeprefix("validation_")
        axis.plot(epochs, [row[name] for row in history], marker=marker, ms=3, color="C1")
        axis.set(xlabel="epoch", ylabel=label, title=f"{history[0]['dataset']}: validation {label}")
    for axis in axes.flat:
        axis.grid(alpha=0.3)
        axis.xaxis.set_major_locator(MaxNLocator(MAX_TICKS, integer=True))
    save(figure, path)


def draw_confusion_matrix(path: Path, counts: Tensor, classes: list[str], title: str) -> None:
    """counts (K, K) by true row and predicted column; colours by row share, so that rare count."""
    K = len(classes)
    figure, axis = plt.subplots(figsize=(1.5 + 0.55 * K, 1.2 + 0.5 * K))
    shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
    axis.imshow(shares.sqrt().numpy(), cmap="Blues", vmin=0, vmax=1)  # sqrt: mistakes stay visible
    for row in range(K):
        for column in range(K):
            if counts[row, column]:
                color = "white" if shares[row, column] > 0.3 else "black"
                axis.text(column, row, int(counts[row, column]), ha="center", va="center",
                          color=color, fontsize=8)  # fmt: skip
    axis.set_xticks(range(K), classes, rotation=45, ha="right")
    axis.set_yticks(range(K), classes)
    axis.set(xlabel="predicted", ylabel="true", title=title)
    save(figure, path)


def draw_images(
    path: Path, images: Tensor, captions: list[str], title: str, columns: int = 8
) -> None:
    """A grid of images (n, H, W) in grey or (n, H, W, 3) in colour, each under its caption."""
    if not len(images):
        images, captions = images.new_zeros(1, 8, 8), ["none"]
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(1.35 * columns, 1.75 * rows + 0.4), squeeze=False
    )
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, caption in zip(axes.flat, images, captions, strict=False):
        axis.imshow(image.cpu().numpy(), cmap="gray")
        axis.set_title(caption, fontsize=8)
    figure.suptitle(title)
    figure.tight_layout()
    save(figure, path)


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
    figure, axes = plt.subplots(
        2 * rows, columns, figsize=(1.5 * columns, 3.4 * rows), squeeze=False
    )
    for axis in axes.flat:
        axis.axis("off")
    for n, (picture, places, caption) in enumerate(zip(pictures, maps, captions, strict=True)):
        row, column = 2 * (n // columns), n % columns
        grey = picture.cpu() if picture.dim() == 2 else picture.cpu().mean(2)
        axes[row, column].imshow(picture.cpu().numpy(), cmap="gray", vmin=0, vmax=1)
        axes[row, column].set_title(caption, fontsize=7)
        axes[row + 1, column].imshow(grey.numpy(), cmap="gray", vmin=0, vmax=1)
        axes[row + 1, column].imshow(places.cpu().numpy(), cmap=colours, alpha=0.5, vmin=0, vmax=1)
    figure.suptitle(title)
    figure.tight_layout()
    save(figure, path)


def draw_worst_mistakes(
    path: Path, images: Callable, data, logits: Tensor, title: str, most: int = 24
) -> None:
    """The wrongly classified examples of a Split that the network is surest of: logits (N, K).

    `images` gives the pictures (n, H, W) or (n, H, W, 3) of some rows (n,).
    """
    log_probs = logits - logits.logsumexp(1, keepdim=True)
    confidence, predictions = log_probs.exp().max(1)
    wrong = (predictions != data.labels).nonzero().squeeze(1)
    worst = wrong[confidence[wrong].argsort(descending=True)][:most]
    captions = [
        f"{data.classes[data.labels[n]]}, taken for\n{data.classes[predictions[n]]} "
        f"({confidence[n]:.0%})"
        for n in worst
    ]
    draw_images(path, images(worst), captions, f"{title}: {len(wrong)} mistakes, the surest first")
