"""How a Transformer's tokens become vectors, where they stand, and how vectors become logits."""

import torch
from torch import Tensor

from Transformer_Manual.utils.layers import Layer


class TiedEmbedding(Layer):
    """One matrix W (V, D) for three things: the vectors of source tokens, those of target tokens,
    and the last layer (Vaswani et al., 2017, Section 3.4; Press & Wolf, 2017).

    lookup: y = √D W[token]    logits: z = x Wᵀ

    W takes part in the loss in all three ways, so its gradient is the sum of three (and of the
    same token, they add up again):

    ∂L/∂W = Σ (∂L/∂z)ᵀ x  +  √D Σ g in row v, over all places of source and target with token v
    ∂L/∂x = ∂L/∂z W

    Backward meets the logits first: their part is written, the others are added to it.
    """

    parameter_names = ("weight",)

    def __init__(self, vocab_size: int, embed_dim: int):
        # a variance of 1/D keeps that of the logits near one, and √D brings that of y to one
        self.weight = torch.empty(vocab_size, embed_dim).normal_().mul_(embed_dim**-0.5)

    def lookup(self, tokens: Tensor) -> Tensor:  # (N, T) int64 -> (N, T, D)
        rows = self.weight.index_select(0, tokens.flatten())
        return rows.mul_(rows.shape[1] ** 0.5).view(*tokens.shape, -1)

    def lookup_backward(self, tokens: Tensor, grad_output: Tensor) -> None:
        """Add to ∂L/∂W what comes back from the vectors of `tokens`."""
        D = grad_output.shape[-1]
        self.grad_weight.index_add_(0, tokens.flatten(), grad_output.view(-1, D), alpha=D**0.5)

    def logits(self, x: Tensor) -> Tensor:  # (N, T, D) -> (N, T, V)
        self.x = x
        return (x @ self.weight.T).to(x)  # in all bits, whatever autocast makes of products

    def logits_backward(self, grad_logits: Tensor) -> Tensor:  # (N, T, V) -> (N, T, D)
        """Write (not add) the first part of ∂L/∂W."""
        self.grad_weight = (grad_logits.flatten(0, 1).T @ self.x.flatten(0, 1)).to(self.weight)
        return grad_logits @ self.weight


def sinusoids(length: int, D: int) -> Tensor:
    """(length, D): channel 2i is sin(t ωᵢ), 2i + 1 is cos(t ωᵢ), with ωᵢ = 10000^(−2i/D) (Vaswani
    et al., 2017, Section 3.5).

    From t to t + τ each pair is turned by the angle τ ωᵢ, whatever t is.
    """
    omega = 10_000 ** (-torch.arange(0, D, 2) / D)
    angles = torch.arange(length)[:, None] * omega  # (length, D/2)
    positions = torch.stack([angles.sin(), angles.cos()], dim=2)
    return positions.flatten(1)[:, :D]


class SinusoidalPositions(Layer):
    """y_t = x_t + p_t with the p_t of `sinusoids`: nothing is learned, and ∂L/∂x = g."""

    def __init__(self, max_length: int, embed_dim: int):
        self.weight = sinusoids(max_length, embed_dim)

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        """x (N, T, D) -> (N, T, D); the first token is at position `start`."""
        self.weight = self.weight.to(x)  # its device and type: being no parameter, it did not move
        return x + self.weight[start : start + x.shape[1]]

    def backward(self, *grad_outputs: Tensor) -> None:
        """Nothing to learn."""


class NoPositions(Layer):
    """y = x: rotary positions are no part of the tokens, attention turns its queries and keys."""

    def __init__(self, max_length: int, embed_dim: int):
        """As the others, with nothing to keep."""

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        return x

    def backward(self, *grad_outputs: Tensor) -> None:
        """Nothing to learn."""


class LearnedPositions(SinusoidalPositions):
    """y_t = x_t + E[t] with a learned E (max_length, D) (Gehring et al., 2017, Section 3.1).

    ∂L/∂E[t] = Σₙ g[n, t], and ∂L/∂x = g. Source and target use the same E: their gradients add up.
    E starts from N(0, ½), as large as the sinusoids; much smaller, it would drown in x for long.
    """

    parameter_names = ("weight",)

    def __init__(self, max_length: int, embed_dim: int):
        self.weight = torch.empty(max_length, embed_dim).normal_().mul_(0.5**0.5)

    def backward(self, *grad_outputs: Tensor) -> None:
        """Everything that comes back at once: one (N, T, D) of each forward."""
        self.grad_weight = torch.zeros_like(self.weight)
        for grad in grad_outputs:
            self.grad_weight[: grad.shape[1]] += grad.sum(0)
