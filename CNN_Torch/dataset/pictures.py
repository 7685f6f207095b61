"""An image file as it is meant to look: upright, without transparency, in RGB."""

import struct
import zlib
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import numpy
from PIL import Image, ImageOps, UnidentifiedImageError

from common.errors import UserError

BACKGROUND = "white"  # behind what is transparent: as on paper, and in most viewers
SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a pixel, by a PNG's type of colour
PASSES = (  # of an interlaced PNG: first column, first row, and the steps to the next
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)
)  # fmt: skip


def read_image(path: Path, content: bytes | None = None) -> Image.Image:
    """The image in RGB, turned as its EXIF orientation says, on BACKGROUND where it is transparent.

    Raises UserError naming a file that cannot be read.
    """
    try:
        content = path.read_bytes() if content is None else content
        with Image.open(BytesIO(content)) as image:
            if image.format == "PNG" and lacks_rows(content):
                raise ValueError("its last rows are missing")
            image.load()
            with suppress(Exception):  # whatever is wrong with its EXIF, its pixels are not
                ImageOps.exif_transpose(image, in_place=True)
            return opaque(image)
    except UnidentifiedImageError:
        raise UserError(f"{path} cannot be read as an image: remove it, or name another") from None
    except Exception as error:  # whatever Pillow's readers of many formats raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        what = f"{path} cannot be read as an image ({reason})"
        raise UserError(f"{what}: remove it, or name another") from None


def opaque(image: Image.Image) -> Image.Image:
    """In RGB, without transparency. Raises ValueError for pixels whose range nobody can know."""
    if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
        raise ValueError("pixels of 32 bits, whose range it does not say: save 8 or 16 bits")
    if image.mode.startswith("I"):  # 16 bits a pixel, which convert() would cut off
        pixels = numpy.asarray(image)
        grey = (pixels // 257).astype("uint8")
        rgb = Image.fromarray(grey).convert("RGB")
        if "transparency" in image.info:
            clear = Image.fromarray(pixels == image.info["transparency"])
            rgb.paste(BACKGROUND, mask=clear)
        return rgb
    if not image.has_transparency_data:
        return image.convert("RGB")
    background = Image.new("RGBA", image.size, BACKGROUND)
    return Image.alpha_composite(background, image.convert("RGBA")).convert("RGB")


def lacks_rows(content: bytes) -> bool:
    """Whether a PNG holds fewer pixels than it announces, which Pillow would take for black.

    Each row of each pass is a byte for its filter, then its pixels (PNG specification, section 7).
    """
    width, height, bits, colours, interlaced = struct.unpack(">IIBBxxB", content[16:29])
    announced = 0
    for column, row, across, down in PASSES if interlaced else [(0, 0, 1, 1)]:
        columns, rows = -((column - width) // across), -((row - height) // down)
        if columns > 0 and rows > 0:
            announced += rows * (1 + -(-columns * bits * SAMPLES[colours] // 8))
    compressed, at = [], 8
    while at + 8 <= len(content):
        length, kind = struct.unpack(">I4s", content[at : at + 8])
        if kind == b"IDAT":
            compressed.append(content[at + 8 : at + 8 + length])
        at += length + 12
    return len(zlib.decompressobj().decompress(b"".join(compressed), announced)) < announced
