"""Samples as one picture: images side by side, points on a map."""

import torch
from torch import Tensor

from GAN.dataset import ring, to_float
from GAN.model import Generator
from GAN.utils.judge import draw_labels, latents, sample
from GAN.utils.mosaic import mosaic

COLUMNS, ROWS, POINTS, SEED = 10, 4, 2_000, 0
PAPER, WIDTH = 3.0, 200  # of a picture of points: from -3 to 3, in so many pixels


def sheet(
    generator: Generator, columns: int = COLUMNS, rows: int = ROWS, seed: int = SEED
) -> Tensor:
    """A grid of samples, of a conditional generator a column for each of the first classes; of
    points, a map of them. In [0, 1]: (H', W') or, in colour, (H', W', 3)."""
    generator.eval()
    points = len(generator.shape) == 1
    number = POINTS if points else columns * rows
    labels = draw_labels(number, generator, seed)
    if generator.labelled and not points:
        labels = (torch.arange(number) % columns) % generator.num_classes
    samples = sample(generator, latents(number, generator, seed), labels)
    return scatter(samples) if points else mosaic(to_float(samples), columns)


def scatter(points: Tensor) -> Tensor:
    """Points (N, 2) as a picture (WIDTH, WIDTH, 3): blue on white, the true modes orange."""
    picture = torch.ones(WIDTH, WIDTH, 3)
    for places, colour, size in (
        (ring.centres(), (1.0, 0.6, 0.1), 3),
        (points.cpu(), (0.1, 0.3, 0.7), 1),
    ):
        pixels = ((places + PAPER) / (2 * PAPER) * WIDTH).floor().long()
        steps = torch.arange(size) - size // 2
        pixels = (pixels[:, None] + torch.cartesian_prod(steps, steps).view(-1, 2)).view(-1, 2)
        x, y = pixels[((pixels >= 0) & (pixels < WIDTH)).all(1)].unbind(1)
        picture[WIDTH - 1 - y, x] = torch.tensor(colour)
    return picture
