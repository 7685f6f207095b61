"""Many small images as one picture."""

import io
import os
from itertools import count
from pathlib import Path

from PIL import Image
from torch import Tensor

from common.checkpoint import write_atomically
from common.errors import UserError


def mosaic(images: Tensor, columns: int, gap: int = 2) -> Tensor:
    """Images (n, C, H, W) in [0, 1], grey or in three colours, side by side in rows of `columns`:
    a sheet (H', W') or (H', W', 3).

    They are taken row by row; a last row that is not full stays white, as do the gaps.
    """
    n, C, H, W = images.shape
    rows = -(-n // columns)
    sheet = images.new_ones(rows * (H + gap) - gap, columns * (W + gap) - gap, C)
    for k, image in enumerate(images):
        top, left = k // columns * (H + gap), k % columns * (W + gap)
        sheet[top : top + H, left : left + W] = image.permute(1, 2, 0)
    return sheet.squeeze(2)


def to_picture(sheet: Tensor, scale: int = 2) -> Image.Image:
    """A sheet (H, W) or (H, W, 3) in [0, 1] as a picture, every pixel `scale` times as large."""
    pixels = (sheet.detach().cpu().float().clamp(0, 1) * 255).round().byte()
    return Image.fromarray(pixels.repeat_interleave(scale, 0).repeat_interleave(scale, 1).numpy())


def draw_titled(path: Path, sheet: Tensor, title: str, scale: int = 2) -> None:
    """A sheet as a PNG file, under a title."""
    from common.plots import new_figure, save  # matplotlib is slow to import

    picture = to_picture(sheet, scale)
    width, height = (side / 120 for side in picture.size)  # inches, at 120 dots each
    figure, ((axis,),) = new_figure(size=(max(5, width), height + 0.5))
    axis.imshow(picture, cmap="gray", vmin=0, vmax=255)
    axis.axis("off")
    axis.set_title(title, fontsize=9)
    save(figure, path)


def check_folder(folder: Path) -> None:
    """Raises UserError where `unused` could not make the folder or its file, before the work."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        raise UserError(f"--output {folder} cannot be made: {there} takes no files")


def unused(folder: Path, name: str) -> Path:
    """folder/NAME-001.png, or the first number under which nothing lies yet; makes the folder.

    Raises UserError where that cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {folder} cannot be made ({error.strerror})") from None
    paths = (folder / f"{name}-{number:03d}.png" for number in count(1))
    return next(p for p in paths if not p.exists() and not p.with_suffix("").exists())


def save_png(path: Path, sheet: Tensor, scale: int = 2) -> None:
    """A sheet as a PNG file, written whole or not at all."""
    buffer = io.BytesIO()
    to_picture(sheet, scale).save(buffer, "PNG")
    write_atomically(path, buffer.getvalue())
