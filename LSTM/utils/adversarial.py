"""Adversarial training (Miyato et al., 2017, arXiv:1605.07725): texts are learned as they are, and
with their words' vectors moved a little, so that the loss rises.

N texts, T words of the longest, D embed_dim.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from common.device import random_state, set_random_state


def worst_shift(gradient: Tensor, vectors: Tensor, size: float) -> Tensor:
    """Of all shifts d with ‖d‖ = `size` · ‖x‖ the one that raises the loss most, to first order:

        d = size · ‖x‖ · g / ‖g‖    with g = ∂L/∂x

    x, g (N, T, D) -> d (N, T, D), the norms over a whole text. The size is a share of ‖x‖, so that
    longer vectors are no way out. (In the paper the vocabulary's vectors are normalised, to the
    same end.) Below ‖g‖ = 1e-12, d shrinks with g, down to 0.
    """
    length = vectors.flatten(1).norm(dim=1, keepdim=True)
    return (size * length * F.normalize(gradient.flatten(1))).view_as(gradient)


def backward(
    loss_of: Callable[[Tensor], Tensor], vectors: Tensor, size: float, scaler: torch.amp.GradScaler
) -> Tensor:
    """Leaves the parameters the gradient of L(x) + L(x + d), and returns L(x).

    `loss_of` gives the loss for a shift of `vectors`, x (N, T, D). Both losses are of one network:
    dropout leaves out the same. In the second term d counts as a constant, as in the paper.
    """
    shift, state = torch.zeros_like(vectors, requires_grad=True), random_state()
    loss = loss_of(shift)
    scaler.scale(loss).backward()
    set_random_state(state)
    scaler.scale(loss_of(worst_shift(shift.grad, vectors, size))).backward()
    return loss
