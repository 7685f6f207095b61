"""Augmentation of whole batches, on their device: the twin of CNN_Manual/utils/augment.py."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def random_flip(images: Tensor) -> Tensor:
    """Mirror each image, left to right, with probability ½: (N, C, H, W) -> (N, C, H, W)."""
    chosen = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
    return torch.where(chosen, images.flip(3), images)


def random_affine(
    images: Tensor, max_shift: float, max_degrees: float, max_zoom: float, background: float
) -> Tensor:
    """Shift, rotate and zoom each image by its own random amounts: (N, C, H, W) -> (N, C, H, W).

    The amounts are uniform: up to `max_shift` pixels in either direction, `max_degrees` either
    way, and a factor between 1 − `max_zoom` and 1 + `max_zoom`. What comes in from outside has the
    value `background`.
    """
    N, device = len(images), images.device

    def uniform(limit: float) -> Tensor:
        return limit * (2 * torch.rand(N, device=device) - 1)

    angle = uniform(math.radians(max_degrees))
    zoom = 1 + uniform(max_zoom)
    return affine(images, angle, zoom, uniform(max_shift), uniform(max_shift), background)


def affine(
    images: Tensor, angle: Tensor, zoom: Tensor, down: Tensor, right: Tensor, background: float
) -> Tensor:
    """Rotate image n by angle[n] radians (clockwise as seen) about its centre, zoom it by zoom[n],
    then move it by down[n] and right[n] pixels: (N, C, H, W) -> (N, C, H, W).

    `affine_grid` wants the inverse map, (x, y) first and in units of half the image's side, as a
    matrix (N, 2, 3); `grid_sample` looks up between four pixels (bilinear interpolation), and
    takes zeros outside, so `background` is made the zero for as long.
    """
    H, W = images.shape[2:]
    cos, sin = angle.cos() / zoom, angle.sin() / zoom
    half_x, half_y = W / 2, H / 2  # align_corners=False: ±1 are the outer edges of the border
    inverse = torch.stack(  # (N, 2, 3)
        [
            torch.stack([cos, sin * half_y / half_x, -(cos * right + sin * down) / half_x], dim=1),
            torch.stack([-sin * half_x / half_y, cos, (sin * right - cos * down) / half_y], dim=1),
        ],
        dim=1,
    )
    grid = F.affine_grid(inverse, list(images.shape), align_corners=False)  # (N, H, W, 2)
    return F.grid_sample(images - background, grid, align_corners=False) + background
