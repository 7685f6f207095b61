"""Eight Gaussians on a ring in the plane: the folder's controlled dataset.

The classic test of mode collapse (Metz et al., 2016, arXiv:1611.02163, section 3.1), where a
generator that fools its opponent with one mode can be seen to do so. The eight densities are known,
so samples can be judged without a trained network.
"""

import math

import torch
from torch import Tensor, nn

from common.data import Split

MODES, RADIUS, STD = 8, 2.0, 0.1
NEAR = 3 * STD  # within it lie 1 - exp(-9/2) = 98.9 % of a two-dimensional Gaussian
FAIR = 0.25  # a mode is covered if it gets this share of the samples that are its due
SIZES_SEEDS = {"train": (100_000, 1), "validation": (10_000, 2), "test": (20_000, 3)}
CLASSES = [f"mode {k}" for k in range(MODES)]


def centres() -> Tensor:
    """(8, 2)"""
    angles = 2 * math.pi * torch.arange(MODES) / MODES
    return RADIUS * torch.stack([angles.cos(), angles.sin()], dim=1)


def make(split: str) -> Split:
    """Points (N, 2) and the number of their Gaussian (N,); the same every time."""
    N, seed = SIZES_SEEDS[split]
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(N) % MODES
    points = centres()[labels] + STD * torch.randn(N, 2, generator=generator)
    return Split(points, labels, CLASSES, {})


class Modes(nn.Module):
    """What stands for the classifier: how near a point is to each mode, exp(-‖x - c_k‖² / 2 NEAR²).

    Their means over many points say which modes are visited, their covariances how exactly.
    """

    def __init__(self):
        super().__init__()
        self.register_buffer("centres", centres())

    def features(self, points: Tensor) -> Tensor:  # (N, 2) -> (N, 8)
        distances = torch.cdist(points, self.centres.to(points))
        return torch.exp(-(distances**2) / (2 * NEAR**2))


def covered(points: Tensor) -> dict[str, float]:
    """Points (N, 2) -> how many `modes` are covered, and the share of `high_quality` points: those
    within three standard deviations of a mode (as Srivastava et al., 2017, arXiv:1705.07761)."""
    distance, nearest = torch.cdist(points, centres().to(points)).min(dim=1)
    good = distance < NEAR
    counts = torch.bincount(nearest[good], minlength=MODES)
    return {
        "modes": int((counts >= FAIR * len(points) / MODES).sum()),
        "high_quality": good.double().mean().item(),
    }
