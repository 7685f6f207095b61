"""Augmentation of whole batches, on their device: the twin of CNN_Manual/utils/augment.py."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def random_flip(images: Tensor) -> Tensor:
    """Mirror every other image, at random, left to right: (N, C, H, W) -> (N, C, H, W)."""
    chosen = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
    return torch.where(chosen, images.flip(3), images)


def random_affine(
    images: Tensor,
    max_shift: float,
    max_degrees: float,
    max_zoom: float,
    background: float,
    elastic: float = 0.0,
) -> Tensor:
    """Shift, rotate and zoom each image by its own random amounts: (N, C, H, W) -> (N, C, H, W).

    The amounts are uniform: up to `max_shift` pixels in either direction, `max_degrees` either
    way, and a factor between 1 − `max_zoom` and 1 + `max_zoom`. With `elastic`, each image is also
    bent by `smooth_field`, so many pixels far. What comes in from outside has the value
    `background`.
    """
    N, device = len(images), images.device

    def uniform(limit: float) -> Tensor:
        return limit * (2 * torch.rand(N, device=device) - 1)

    angle = uniform(math.radians(max_degrees))
    zoom = 1 + uniform(max_zoom)
    down, right = uniform(max_shift), uniform(max_shift)
    bend = elastic * smooth_field(images) if elastic else None
    return affine(images, angle, zoom, down, right, background, bend)


def smooth_field(images: Tensor) -> Tensor:
    """How far each pixel is moved, down and right: (N, C, H, W) -> (N, 2, H, W).

    Random numbers, blurred with a Gaussian, so that neighbours move together: the elastic
    distortions of Simard et al. (2003). As theirs for 28 pixels, the Gaussian's σ is a seventh of
    the image's side. The field has a standard deviation of 1 everywhere, at the edges too.
    """
    (N, _, H, W), device = images.shape, images.device

    def blur(size: int) -> Tensor:  # (size, size): each row is a Gaussian, of length 1
        place = torch.arange(size, device=device, dtype=images.dtype)
        rows = torch.exp(-((place - place[:, None]) ** 2) / (2 * (size / 7) ** 2))
        return rows / rows.norm(dim=1, keepdim=True)

    noise = torch.randn(N, 2, H, W, device=device, dtype=images.dtype)
    return blur(H) @ noise @ blur(W).T


def affine(
    images: Tensor,
    angle: Tensor,
    zoom: Tensor,
    down: Tensor,
    right: Tensor,
    background: float,
    bend: Tensor | None = None,
) -> Tensor:
    """Rotate image n by angle[n] radians (clockwise as seen) about its centre, zoom it by zoom[n],
    then move it by down[n] and right[n] pixels: (N, C, H, W) -> (N, C, H, W).

    `affine_grid` wants the inverse map, (x, y) first and in units of half the image's side, as a
    matrix (N, 2, 3); `grid_sample` looks up between four pixels (bilinear interpolation), and
    takes zeros outside, so `background` is made the zero for as long. With `bend` (N, 2, H, W), a
    pixel is looked up so many pixels further down and to the right.
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
    if bend is not None:
        grid = grid + torch.stack([bend[:, 1] / half_x, bend[:, 0] / half_y], dim=3)
    return F.grid_sample(images - background, grid, align_corners=False) + background
