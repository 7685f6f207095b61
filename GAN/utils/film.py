"""What a network makes in the course of its training: a frame now and then, and a film of them."""

import io
import math
from pathlib import Path

from PIL import Image, ImageDraw
from torch import Tensor

from common.checkpoint import write_atomically
from GAN.utils.mosaic import save_png

FILM = "training.gif"
STRIP = 14  # pixels above each frame, for its epoch


def is_filmed(epoch: int) -> bool:
    """Each of the first epochs (1, 2, …), later every fifth part more: 38 of 2,000."""
    return epoch == 1 or math.floor(math.log(epoch, 1.2)) > math.floor(math.log(epoch - 1, 1.2))


def keep_frame(run_dir: Path, epoch: int, sheet: Tensor) -> None:
    """Put a sheet (H, W) or (H, W, 3) in [0, 1] into the run's frames/, if the epoch is filmed.

    A resumed run makes the frame of an epoch again, and it is the same one.
    """
    if is_filmed(epoch):
        (run_dir / "frames").mkdir(exist_ok=True)
        save_png(run_dir / "frames" / f"{epoch:05d}.png", sheet, scale=1)


def under_its_epoch(frame: Image.Image, epoch: int) -> Image.Image:
    """The frame with a strip above it, in which its epoch stands."""
    picture = Image.new(frame.mode, (frame.width, frame.height + STRIP), "white")
    picture.paste(frame, (0, STRIP))
    ImageDraw.Draw(picture).text((2, 1), f"epoch {epoch}", fill="black")
    return picture


def make_film(run_dir: Path, milliseconds: int = 150) -> None:
    """training.gif of what lies in frames/: it repeats, and its last frame stays longer. In 16
    levels of each colour, which makes it a quarter as large."""
    frames = []
    for path in sorted((run_dir / "frames").glob("*.png")):
        if not path.stem.isdecimal():  # somebody else's
            continue
        with Image.open(path) as frame:
            frame = frame.point(lambda level: round(level / 17) * 17)
            frames.append(under_its_epoch(frame, int(path.stem)))
    if not frames:  # a run of no epochs
        return
    times = [milliseconds] * (len(frames) - 1) + [10 * milliseconds]
    buffer = io.BytesIO()
    frames[0].save(
        buffer, "GIF", save_all=True, append_images=frames[1:], duration=times, loop=0,
        optimize=True,
    )  # fmt: skip
    write_atomically(run_dir / FILM, buffer.getvalue())
