"""A photo or a drawing of your own, prepared as the pictures of MNIST and Fashion-MNIST were.

MNIST (LeCun et al., 1998, section III.A): a digit is grey on black, scaled to fit into a box of
20 x 20 pixels, and placed in 28 x 28 so that its centre of mass is the centre. Fashion-MNIST (Xiao
et al., 2017, section 2): a thing fills 28 x 28 pixels in its longer direction and is centred in the
other. (Its pictures were sharpened as well, which is left out here.)
"""

from pathlib import Path

import numpy
import torch
from PIL import Image
from torch import Tensor

from common.errors import UserError

from .pictures import read_image

SIDE = 28  # pixels of a picture
BOX = {"fashion-mnist": 28}  # pixels that are filled; 20 of a digit
LARGEST = 400  # pixels of a side that are looked at: a photo has more than it takes
FAINT = 0.1  # of the way from white to black: less is no drawing
LEAST, MOST = 0.05, 0.3  # of the strongest stroke: what may pass for the paper's grain


def prepare(path: Path, dataset: str) -> Tensor:
    """A picture file as one of `dataset`: (1, 28, 28) uint8, bright on black.

    Raises UserError for a file that cannot be read or on which nothing is drawn.
    """
    image = read_image(path).convert("L")
    image.thumbnail((LARGEST, LARGEST))
    drawn, grain = lift(torch.from_numpy(numpy.array(image)).float() / 255)
    strongest = drawn.max()
    if strongest < FAINT:
        raise UserError(f"{path} shows nothing: it is of one colour, or white on nothing")
    drawn[drawn < strongest * min(MOST, max(LEAST, 2 * grain / strongest))] = 0
    drawn = scale(crop(drawn), BOX.get(dataset, 20))
    if dataset in BOX:
        return place(drawn, [(SIDE - size) // 2 for size in drawn.shape])
    drawn = drawn / drawn.max()  # thin strokes have become pale
    return place(drawn, [round(SIDE / 2 - where) for where in center_of_mass(drawn)])


def lift(grey: Tensor) -> tuple[Tensor, float]:
    """What is drawn, without the paper: grey (H, W) in [0, 1] -> (H, W), bright on 0.

    The paper is as bright as the picture's four corners, and evenly shaded between them; what is
    drawn differs from it. Dark on light or light on dark: whichever differs more. The second value
    is how much the corners themselves vary.
    """
    H, W = grey.shape
    h, w = max(1, H // 10), max(1, W // 10)
    patches = [[grey[rows, :w], grey[rows, -w:]] for rows in (slice(h), slice(-h, None))]
    corners = torch.tensor([[patch.median() for patch in row] for row in patches])
    grain = max((patch - patch.median()).abs().max().item() for row in patches for patch in row)
    down, across = torch.linspace(0, 1, H), torch.linspace(0, 1, W)
    down, across = torch.stack([1 - down, down], 1), torch.stack([1 - across, across])
    difference = down @ corners @ across - grey  # (H, 2) (2, 2) (2, W)
    dark_on_light = (difference**3).sum() > 0
    return (difference if dark_on_light else -difference).clamp(min=0), grain


def crop(drawn: Tensor) -> Tensor:
    """The smallest part that holds all that is not 0."""
    rows, columns = drawn.amax(1).nonzero(), drawn.amax(0).nonzero()
    return drawn[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def scale(drawn: Tensor, box: int) -> Tensor:
    """Its longer side as long as the box; the other in proportion."""
    height, width = (max(1, round(size * box / max(drawn.shape))) for size in drawn.shape)
    if (height, width) == drawn.shape:
        return drawn
    image = Image.fromarray(drawn.numpy()).resize((width, height), Image.Resampling.BILINEAR)
    return torch.from_numpy(numpy.array(image))


def center_of_mass(drawn: Tensor) -> list[float]:
    """Row and column, weighted by brightness."""
    H, W = drawn.shape
    row, column = drawn.sum(1) @ torch.arange(float(H)), drawn.sum(0) @ torch.arange(float(W))
    return [(row / drawn.sum()).item(), (column / drawn.sum()).item()]


def place(drawn: Tensor, corner: list[int]) -> Tensor:
    """On black, with its upper left corner there, or as near to it as there is room."""
    H, W = drawn.shape
    top, left = min(max(corner[0], 0), SIDE - H), min(max(corner[1], 0), SIDE - W)
    picture = torch.zeros(1, SIDE, SIDE, dtype=torch.uint8)
    picture[0, top : top + H, left : left + W] = (255 * drawn).round().to(torch.uint8)
    return picture
