"""Two interleaved spirals in the plane (Lang & Witbrock, 1988): the folder's controlled dataset.

No straight line separates them, yet a small network can: every split should reach 99 %.
"""

import math

import torch

from common.data import Split

CLASSES = ["first arm", "second arm"]
TURNS, NOISE = 1.5, 0.02
SIZES_SEEDS = {"train": (2_000, 1), "validation": (500, 2), "test": (1_000, 3)}


def make(split: str) -> Split:
    """Points (N, 2) about within the unit circle and their arm (N,); the same every time."""
    size, seed = SIZES_SEEDS[split]
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(size) % 2
    radius = 0.1 + 0.9 * torch.rand(size, generator=generator)
    angle = 2 * math.pi * TURNS * radius + math.pi * labels  # the second arm is half a turn ahead
    points = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)
    points += NOISE * torch.randn(size, 2, generator=generator)
    return Split(points, labels, CLASSES, {})


def load_training(name: str, data_dir: str | None) -> tuple[Split, Split]:
    return make("train"), make("validation")


def load_test(name: str, data_dir: str | None) -> Split:
    return make("test")
