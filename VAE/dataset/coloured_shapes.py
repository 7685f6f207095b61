"""Coloured shapes made by code: a controlled dataset whose factors are all known.

Each image shows one shape (disc, square, triangle or cross) in one colour (red, green, blue or
yellow), somewhere, at some size and angle, on a background of another, duller colour, with noise.
The class is the pair of shape and colour. Nothing is ambiguous, so a network that works reaches
99 % on every split.
"""

import torch
from torch import Tensor

from common.data import Split

SHAPES = ["disc", "square", "triangle", "cross"]
COLOURS = {"red": (0.9, 0.2, 0.2), "green": (0.2, 0.8, 0.2), "blue": (0.25, 0.35, 0.95),
           "yellow": (0.9, 0.85, 0.2)}  # fmt: skip
CLASSES = [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]
SIZE, NOISE = 32, 0.06
SIZES_SEEDS = {"train": (8_000, 1), "validation": (1_600, 2), "test": (1_600, 3)}


def inside(shapes: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Which points belong to the shape: shapes (N,), coordinates (N, H, W) relative to its centre
    in units of its radius -> (N, H, W) bool."""
    disc = x**2 + y**2 < 0.8
    square = torch.maximum(x.abs(), y.abs()) < 0.75
    triangle = (y < 0.7) & (y > 2 * x.abs() - 1)
    cross = (torch.minimum(x.abs(), y.abs()) < 0.25) & (torch.maximum(x.abs(), y.abs()) < 1)
    every = torch.stack([disc, square, triangle, cross])
    return every[shapes, torch.arange(len(shapes))]


def make(split: str) -> Split:
    """uint8 images (N, 3, 32, 32) and their labels (N,); the same every time."""
    return make_with_factors(split)[0]


def make_with_factors(split: str) -> tuple[Split, dict[str, Tensor]]:
    """The images, and what each was made from: every factor (N,), by name."""
    N, seed = SIZES_SEEDS[split]
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(N, *(shape or (1, 1)), generator=generator)

    labels = torch.arange(N) % len(CLASSES)
    colours = torch.tensor(list(COLOURS.values()))[labels // len(SHAPES)]  # (N, 3)
    colours = colours * uniform(0.8, 1.1, 1) + uniform(-0.05, 0.05, 3)
    radius, angle = uniform(6, 10), uniform(-0.3, 0.3)
    center_y, center_x = uniform(10, 22), uniform(10, 22)
    pixel = torch.arange(SIZE, dtype=torch.float32)
    y, x = (pixel[None, :, None] - center_y) / radius, (pixel[None, None, :] - center_x) / radius
    y, x = y * angle.cos() - x * angle.sin(), y * angle.sin() + x * angle.cos()
    shape = inside(labels % len(SHAPES), y, x)[:, None]  # (N, 1, H, W)
    background = uniform(0.3, 0.6, 1, 1, 1) + uniform(-0.08, 0.08, 3, 1, 1)
    images = torch.where(shape, colours[:, :, None, None], background)
    images = images + NOISE * torch.randn(images.shape, generator=generator)
    factors = {"shape": labels % len(SHAPES), "colour": labels // len(SHAPES),
               "size": radius.flatten(), "angle": angle.flatten(),
               "column": center_x.flatten(), "row": center_y.flatten()}  # fmt: skip
    return Split(images.clamp(0, 1).mul(255).round().to(torch.uint8), labels, CLASSES, {}), factors
