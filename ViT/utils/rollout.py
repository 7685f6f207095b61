"""Attention rollout (Abnar & Zuidema, 2020, arXiv:2005.00928): what reaches the last layer."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@torch.no_grad()
def attention_weights(model: nn.Module, images: Tensor) -> Tensor:
    """The softmax of every block and head: normalised images (N, C, H, W) -> (L, N, h, T, T)."""
    x, weights = model.embed(images), []
    for block in model.blocks:
        weights.append(block.attention.weights(block.norm1(x)))
        x = block(x)
    return torch.stack(weights)


def rollout(weights: Tensor) -> Tensor:
    """How much of each token went into each token of the last block: (L, N, h, T, T) -> (N, T, T).

    A block passes its input on and adds what attention gathers, A = (P + I) / 2 with the mean P
    over the heads and the identity I (section 3); L blocks in a row are the product A_L … A_2 A_1.
    Rows sum to one.
    """
    A = (weights.mean(2) + torch.eye(weights.shape[-1], device=weights.device)) / 2
    product = A[0]
    for later in A[1:]:
        product = later @ product
    return product


def relevance(model: nn.Module, images: Tensor) -> Tensor:
    """How much each place went into the vector that is classified: (N, C, H, W) -> (N, H, W).

    Scaled to [0, 1] for each image: from the least to the most.
    """
    rows = rollout(attention_weights(model, images))  # (N, T, T)
    row = rows[:, 0, 1:] if model.pooling == "token" else rows.mean(1)
    grid = row.view(-1, 1, model.side, model.side).cpu()  # MPS has no antialiased bicubic
    places = F.interpolate(grid, size=images.shape[2:], mode="bicubic", antialias=True)[:, 0]
    low, high = places.amin(dim=(1, 2), keepdim=True), places.amax(dim=(1, 2), keepdim=True)
    return (places - low) / (high - low).clamp(min=1e-12)
