"""Many small images as one picture."""

import io
from pathlib import Path

from PIL import Image
from torch import Tensor

from common.checkpoint import write_atomically


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


def save_png(path: Path, sheet: Tensor, scale: int = 2) -> None:
    """A sheet as a PNG file, written whole or not at all."""
    buffer = io.BytesIO()
    to_picture(sheet, scale).save(buffer, "PNG")
    write_atomically(path, buffer.getvalue())
