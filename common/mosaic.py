"""Many small images as one, and many such frames as a film (GIF)."""

import io
from pathlib import Path

from PIL import Image
from torch import Tensor

from common.checkpoint import write_atomically


def mosaic(images: Tensor, columns: int, gap: int = 2) -> Tensor:
    """Images (n, H, W) or (n, H, W, 3) in [0, 1], side by side in rows of `columns`: (H', W'[, 3]).

    They are taken row by row; a last row that is not full stays white, as do the gaps.
    """
    n, H, W, *colours = images.shape
    rows = -(-n // columns)
    sheet = images.new_ones(rows * (H + gap) - gap, columns * (W + gap) - gap, *colours)
    for k, image in enumerate(images):
        top, left = k // columns * (H + gap), k % columns * (W + gap)
        sheet[top : top + H, left : left + W] = image
    return sheet


def to_picture(sheet: Tensor, scale: int = 2) -> Image.Image:
    """A tensor (H, W) or (H, W, 3) in [0, 1] as a picture, every pixel `scale` times as large."""
    pixels = (sheet.detach().cpu().float().clamp(0, 1) * 255).round().byte()
    return Image.fromarray(pixels.repeat_interleave(scale, 0).repeat_interleave(scale, 1).numpy())


def save_gif(path: Path, frames: list[Tensor], milliseconds: int = 200, scale: int = 2) -> None:
    """Frames (H, W) or (H, W, 3) in [0, 1] as a GIF that repeats; the last one stays longer.

    Raises ValueError where there is no frame. Written whole or not at all.
    """
    if not frames:
        raise ValueError("a film needs at least one frame")
    first, *others = [to_picture(frame, scale) for frame in frames]
    times = [milliseconds] * (len(frames) - 1) + [10 * milliseconds]
    buffer = io.BytesIO()
    first.save(
        buffer, "GIF", save_all=True, append_images=others, duration=times, loop=0, optimize=True
    )
    write_atomically(path, buffer.getvalue())
