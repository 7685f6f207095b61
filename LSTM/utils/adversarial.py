"""Adversarial training (Miyato et al., 2017, arXiv:1605.07725): a text is learned twice, as it is
and with its words' vectors moved a little to where the network does worst.

N texts, T words of the longest, D embed_dim.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def worst_shift(gradient: Tensor, vectors: Tensor, size: float) -> Tensor:
    """Of all shifts d with ‖d‖ = `size` · ‖x‖ the one that raises the loss most, to first order:

        d = size · ‖x‖ · g / ‖g‖    with g = ∂L/∂x

    x, g (N, T, D) -> d (N, T, D), the norms over a whole text. The size is a share of ‖x‖, so that
    longer vectors are no way out. (In the paper the vectors are normalised, to the same end.)
    """
    length, steepness = (t.flatten(1).norm(dim=1)[:, None, None] for t in (vectors, gradient))
    return gradient * (size * length / steepness.clamp(min=torch.finfo(gradient.dtype).tiny))


def backward(
    loss_of: Callable[[Tensor], Tensor], vectors: Tensor, size: float, scaler: torch.amp.GradScaler
) -> Tensor:
    """Leaves the parameters the gradient of L(x) + L(x + d), and returns L(x).

    `loss_of` gives the loss for a shift of `vectors`, x (N, T, D). In the second term d counts as a
    constant, as in the paper.
    """
    shift = torch.zeros_like(vectors, requires_grad=True)
    loss = loss_of(shift)
    scaler.scale(loss).backward()
    scaler.scale(loss_of(worst_shift(shift.grad, vectors, size))).backward()
    return loss
