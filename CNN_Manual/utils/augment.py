"""Augmentation of whole batches, on their device: every image gets its own random change."""

import math

import torch
from torch import Tensor


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

    Each pixel of the result is looked up where it comes from, between four pixels of the image,
    weighted by nearness (bilinear interpolation).
    """
    N, C, H, W = images.shape
    device, dtype = images.device, images.dtype
    # the inverse map: position in the result -> position in the image
    y = torch.arange(H, device=device, dtype=dtype) - (H - 1) / 2 - down[:, None]  # (N, H)
    x = torch.arange(W, device=device, dtype=dtype) - (W - 1) / 2 - right[:, None]  # (N, W)
    cos, sin = (angle.cos() / zoom)[:, None, None], (angle.sin() / zoom)[:, None, None]
    source_y = cos * y[:, :, None] - sin * x[:, None, :] + (H - 1) / 2  # (N, H, W)
    source_x = sin * y[:, :, None] + cos * x[:, None, :] + (W - 1) / 2

    # a border of background, one pixel wide, stands for everything outside
    padded = images.new_full((N, C, H + 2, W + 2), background)
    padded[:, :, 1:-1, 1:-1] = images
    padded = padded.flatten(2)  # (N, C, (H+2)*(W+2))
    source_y, source_x = (source_y + 1).clamp(0, H + 1), (source_x + 1).clamp(0, W + 1)
    top, left = source_y.floor().clamp(max=H), source_x.floor().clamp(max=W)
    weight_bottom, weight_right = source_y - top, source_x - left
    corner = (top * (W + 2) + left).long().flatten(1)[:, None, :].expand(N, C, H * W)

    def pixels(row: int, column: int) -> Tensor:
        return padded.gather(2, corner + (row * (W + 2) + column)).view(N, C, H, W)

    weight_bottom, weight_right = weight_bottom[:, None], weight_right[:, None]
    upper = torch.lerp(pixels(0, 0), pixels(0, 1), weight_right)
    lower = torch.lerp(pixels(1, 0), pixels(1, 1), weight_right)
    return torch.lerp(upper, lower, weight_bottom)
