"""Samples over training: a picture after each epoch, and some of them as a film."""

from io import BytesIO
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from common.checkpoint import write_atomically
from common.mosaic import mosaic, save_gif, to_picture
from common.vision import to_float
from GAN.dataset import ring
from GAN.model import Generator
from GAN.utils.judge import even_labels, latents, sample

COLUMNS, ROWS, POINTS, MOST_FRAMES, SEED = 10, 4, 2_000, 24, 0
PAPER, WIDTH = 3.0, 200  # of a picture of points: from -3 to 3, in so many pixels


def sheet(
    generator: Generator, columns: int = COLUMNS, rows: int = ROWS, seed: int = SEED
) -> Tensor:
    """A grid of samples, of a conditional generator a column for each of the first classes; of
    points, a map of them. In [0, 1]: (H', W') or, in colour, (H', W', 3)."""
    generator.eval()
    points = len(generator.shape) == 1
    number = POINTS if points else columns * rows
    labels = even_labels(number, generator)
    if generator.num_classes and not points:
        labels = (torch.arange(number) % columns) % generator.num_classes
    samples = sample(generator, latents(number, generator, seed), labels)
    return scatter(samples) if points else mosaic(pictures(samples), columns)


def pictures(images: Tensor) -> Tensor:
    """uint8 (N, C, H, W) -> (N, H, W), or (N, H, W, 3) in colour, in [0, 1]."""
    return to_float(images).permute(0, 2, 3, 1).squeeze(3).cpu()


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


def save_frame(run_dir: Path, epoch: int, frame: Tensor) -> None:
    """Keep the picture of an epoch in the run's frames/, whole or not at all."""
    buffer = BytesIO()
    to_picture(frame, scale=1).save(buffer, "PNG")
    (run_dir / "frames").mkdir(exist_ok=True)
    write_atomically(run_dir / "frames" / f"{epoch:05d}.png", buffer.getvalue())


def make_film(run_dir: Path) -> None:
    """samples.gif from what is in frames/: at most 24, spread evenly, the last one among them."""
    paths = sorted((run_dir / "frames").glob("*.png"))
    some = torch.linspace(0, len(paths) - 1, min(len(paths), MOST_FRAMES)).round().long()
    frames = [to_float(pil_to_tensor(Image.open(paths[k]))) for k in some.tolist()]
    if frames:
        save_gif(run_dir / "samples.gif", [f.permute(1, 2, 0).squeeze(2) for f in frames])
