"""The pictures that several folders draw. Every function writes one PNG file."""

import io
import os
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from unittest.mock import patch

from torch import Tensor

from common.checkpoint import write_atomically
from common.errors import UserError
from common.history import METRICS, shown

named = None if "matplotlib" in sys.modules else os.environ.get("MPLBACKEND")
with patch.dict(os.environ):  # a notebook's backend may not be there, and importing would fail
    os.environ.pop("MPLBACKEND", None)
    import matplotlib
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure
    from matplotlib.text import Text
    from matplotlib.ticker import MaxNLocator
if named:
    with suppress(ValueError):
        matplotlib.rcParams["backend"] = named  # for others in this process: it is theirs

MAX_TICKS = 8
STYLE = {"text.parse_math": False, "text.usetex": False}  # a $ in a name is a $


def new_figure(rows: int = 1, columns: int = 1, size: tuple[float, float] = (6, 4), **shared):
    """A figure of `size` inches, and its axes in an array (rows, columns).

    It is ours alone: no window, no pyplot, so the backend of a notebook is neither needed nor
    changed. Panels make room for each other's labels.
    """
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **shared)


def drawable(name: str) -> str:
    """A name whose bytes are no text (a folder's, in Latin-1) with these escaped."""
    return name.encode("utf-8", "backslashreplace").decode()


def save(figure: Figure, path: Path) -> None:
    """Write the figure as a PNG file, whole or not at all; all its text is taken literally. Raises
    UserError when the file cannot be written."""
    if Path(path).suffix.lower() != ".png":
        raise UserError(f"{path}: pictures are PNG files, name one that ends in .png")
    content = io.BytesIO()
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a box stands for it
        for text in figure.findobj(Text):
            text.set(parse_math=False, usetex=False, text=drawable(text.get_text()))
        figure.savefig(content, format="png", dpi=120, bbox_inches="tight")
    write_atomically(Path(path), content.getvalue())


def draw_curves(path: Path, history: list[dict]) -> None:
    """Losses on the left; accuracy, or whatever else was measured, on the right."""
    epochs, dataset = [row["epoch"] for row in history], history[0]["dataset"]
    loss = "mse" if "validation_mse" in history[0] else "loss"  # of the same kind as training's
    others = [k for k in history[0] if k.startswith("validation_") and k != f"validation_{loss}"]
    figure, axes = new_figure(1, 1 + len(others), (5 * (1 + len(others)), 3.6))
    style = dict(marker="o" if len(epochs) < 30 else None, ms=3)
    losses = {"train_loss": "training (as regularised)", f"validation_{loss}": "validation"}
    for key, name in losses.items():
        if key in history[0]:
            axes[0, 0].plot(epochs, [row[key] for row in history], label=name, **style)
    unit = METRICS[loss][0] if f"validation_{loss}" in history[0] else "loss"
    axes[0, 0].set(ylabel=unit, title=f"{dataset}: loss")
    axes[0, 0].legend()
    for axis, key in zip(axes[0, 1:], others, strict=True):
        name, factor, _ = shown(key.removeprefix("validation_"))
        axis.plot(epochs, [factor * row[key] for row in history], "C1", label="validation", **style)
        axis.set(ylabel=name, title=f"{dataset}: validation, {name.partition(',')[0]}")
        if key == "validation_accuracy" and "train_accuracy" in history[0]:
            seen = [factor * row["train_accuracy"] for row in history]
            axis.plot(epochs, seen, "C0", label="training", **style)
            axis.set(title=f"{dataset}: accuracy")
            axis.legend()
    for axis in axes.flat:
        axis.grid(alpha=0.3)
        axis.set(xlabel="epoch", xlim=(epochs[0] - 0.5, epochs[-1] + 0.5))
        axis.xaxis.set_major_locator(MaxNLocator(MAX_TICKS, integer=True, min_n_ticks=1))
    save(figure, path)


def draw_confusion_matrix(path: Path, counts: Tensor, classes: list[str], title: str) -> None:
    """counts (K, K) by true row and predicted column; colours by the root of row shares."""
    K = len(classes)
    figure, ((axis,),) = new_figure(size=(1.5 + 0.55 * K, 1.2 + 0.5 * K))
    shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
    image = axis.imshow(shares.numpy(), cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=1))
    figure.colorbar(image, ax=axis, label="share of the true class", shrink=0.8)
    for row in range(K):
        for column in range(K):
            if counts[row, column]:
                color = "white" if shares[row, column] > 0.3 else "black"
                axis.text(column, row, int(counts[row, column]), ha="center", va="center",
                          color=color, fontsize=8)  # fmt: skip
    classes = [drawable(name) for name in classes]
    axis.set_xticks(range(K), classes, rotation=45, ha="right")
    axis.set_yticks(range(K), classes)
    axis.set(xlabel="predicted", ylabel="true", title=title)
    save(figure, path)


def draw_images(path: Path, images: Tensor, captions: list[str], title: str, columns: int = 8):
    """A grid of images (n, H, W) in grey or (n, H, W, 3) in colour, each under its caption."""
    columns = max(1, min(columns, len(images)))  # of no images, the title alone is left
    rows = max(1, -(-len(images) // columns))
    figure, axes = new_figure(rows, columns, (max(4, 1.35 * columns), 1.75 * rows + 0.4))
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, caption in zip(axes.flat, images, captions, strict=False):
        axis.imshow(image.cpu().numpy(), cmap="gray")
        axis.set_title(caption, fontsize=8)
    figure.suptitle(title)
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
