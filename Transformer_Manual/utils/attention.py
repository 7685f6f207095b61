"""Attention, forward and backward: of vectors, of several heads, of a text to itself or another.

N is the batch, h heads, T tokens that ask (queries), S tokens that are asked (keys and values), D
their width, d = D/h that of a head. B = N·h: every head of every example is one of a batch of
products, so no loop over them is needed.
"""

import math

import torch
from torch import Tensor

from Transformer_Manual.utils.layers import Dropout, Layer, Linear


def causal_mask(T: int, like: Tensor) -> Tensor:
    """(1, T, T), to be added to scores: −∞ where a token would see a later one, else 0."""
    return like.new_full((1, T, T), -math.inf).triu_(1)


def padding_mask(padding: Tensor, num_heads: int, like: Tensor) -> Tensor:
    """(N, S), True where there is padding -> (N·h, 1, S), to be added to scores: −∞ there, else 0.

    Of an example that is padding alone, the first stays to be seen: a softmax over nothing has no
    meaning, and what comes of it is in nobody's loss.
    """
    padding = padding.clone()
    padding[:, 0] = False
    mask = like.new_zeros(padding.shape).masked_fill_(padding, -math.inf)
    return mask.repeat_interleave(num_heads, dim=0)[:, None]


class Attention(Layer):
    """y = p v,  p = softmax(s) row by row,  s = q kᵀ/√d + M  (Vaswani et al., 2017, Equation 1)

    Each query takes the mean of all values, weighted by how well their keys fit it. If the numbers
    of q and k are independent, with mean 0 and variance 1, q kᵀ has the variance d; the √d keeps
    softmax from saturating. The mask M is 0 or −∞: e^−∞
    is 0, so what is masked has no weight, no matter how large its score. Every row of M has a 0.

    From g = ∂L/∂y (B, T, d) backwards, one factor after the other:

    y = p v, a product:    ∂L/∂v = pᵀ g    ∂L/∂p = g vᵀ
    p = softmax(s):  ∂pⱼ/∂sᵢ = pⱼ ([i = j] − pᵢ), so  ∂L/∂sᵢ = pᵢ (∂L/∂pᵢ − Σⱼ pⱼ ∂L/∂pⱼ).  And the
    sum, Σⱼ pⱼ (g · vⱼ), is g · Σⱼ pⱼ vⱼ = g · y: a product of d numbers, not of S
    s = q kᵀ/√d + M:    ∂L/∂q = ∂L/∂s k /√d    ∂L/∂k = (∂L/∂s)ᵀ q /√d

    Where pᵢ is 0, so is ∂L/∂sᵢ: the mask needs no thought in backward.

    Dropout is on p: with its mask m (0 or 1/(1 − rate)) and p̃ = p m, y is p̃ v, so ∂L/∂v = p̃ᵀ g,
    ∂L/∂p = m (g vᵀ), Σⱼ pⱼ ∂L/∂pⱼ = g · y as before, and ∂L/∂s = p̃ (g vᵀ) − p (g · y).
    """

    def __init__(self, dropout: float = 0.0):
        self.dropout = Dropout(dropout)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """q (B, T, d), k and v (B, S, d), a mask that broadcasts to (B, T, S) -> (B, T, d)."""
        self.q, self.k, self.v, self.scale = q, k, v, q.shape[2] ** -0.5
        # e^s is 2^(s log₂e), and exp2 is several times as fast as exp where s is −∞
        q = q * (self.scale * math.log2(math.e))
        if mask is None:
            s = torch.bmm(q, k.transpose(1, 2))
        else:
            s = torch.baddbmm(mask, q, k.transpose(1, 2))
        s.sub_(s.amax(2, keepdim=True)).exp2_()  # the largest becomes 1: nothing overflows
        self.weights = s.div_(s.sum(2, keepdim=True))  # p
        self.dropped = self.dropout.forward(self.weights)  # p̃
        self.y = torch.bmm(self.dropped, v)
        return self.y

    def backward(self, grad_output: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, d) -> ∂L/∂q, ∂L/∂k, ∂L/∂v of the shapes of q, k, v."""
        grad_v = torch.bmm(self.dropped.transpose(1, 2), grad_output)
        sums = (grad_output * self.y).sum(2, keepdim=True)  # (B, T, 1)
        grad_s = torch.bmm(grad_output, self.v.transpose(1, 2)).mul_(self.dropped)
        grad_s.addcmul_(self.weights, sums, value=-1)
        grad_q = torch.bmm(grad_s, self.k).mul_(self.scale)
        grad_k = torch.bmm(grad_s.transpose(1, 2), self.q).mul_(self.scale)
        return grad_q, grad_k, grad_v


class MultiheadAttention(Layer):
    """h attentions side by side, each on d = D/h channels of its own, of a text to itself (Vaswani
    et al., 2017, Section 3.2.2). Names, shapes and initial values are nn.MultiheadAttention's.

    (q, k, v) = x W_inᵀ + b_in, cut into heads    y = (head₁, …, head_h) W_outᵀ + b_out

    The rows of W_in (3D, D) hold q, k, v in this order, so that they are one product. What comes
    back from the heads is put side by side the same way, A = (∂L/∂q, ∂L/∂k, ∂L/∂v) (N·T, 3D), and
    the rest is that of a Linear layer:

    ∂L/∂W_in = Aᵀ x    ∂L/∂b_in = Σ A    ∂L/∂x = A W_in
    """

    parameter_names = ("in_proj_weight", "in_proj_bias")

    def __init__(self, embed_dim: int, num_heads: int, dropout: float = 0.0):
        D = embed_dim
        if D % num_heads:
            raise ValueError(f"a width of {D} cannot be split into {num_heads} equal heads")
        self.num_heads = num_heads
        self.out_proj = Linear(D, D)
        self.out_proj.bias.zero_()
        self.in_proj_weight = xavier_uniform(torch.empty(3 * D, D))
        self.in_proj_bias = torch.zeros(3 * D)
        self.attention = Attention(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x (N, T, D), a mask that broadcasts to (N·h, T, T) -> (N, T, D)."""
        return self.attend(*self.project(x), mask)

    def project(self, x: Tensor, start: int = 0) -> Tensor:
        """Queries, keys and values of all heads: x (N, T, D) -> (3, N·h, T, d).

        The position of the first token, `start`, is no matter here; it is to rotary attention.
        """
        self.x = x.flatten(0, 1)
        qkv = torch.addmm(self.in_proj_bias, self.x, self.in_proj_weight.T)  # (N·T, 3D)
        return self.split(qkv, len(x))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """q (N·h, T, d), k and v (N·h, S, d) -> (N, T, D)."""
        y = self.join(self.attention.forward(q, k, v, mask))  # (N·T, D)
        return self.out_proj.forward(y).unflatten(0, (-1, q.shape[1]))

    def backward(self, grad_output: Tensor) -> Tensor:  # (N, T, D) -> (N, T, D)
        grad = self.out_proj.backward(grad_output.flatten(0, 1))
        (grad,) = self.split(grad, len(grad_output))
        grad = self.join(*self.attention.backward(grad))  # (N·T, 3D)
        self.grad_in_proj_weight = grad.T @ self.x
        self.grad_in_proj_bias = grad.sum(0)
        return (grad @ self.in_proj_weight).view(grad_output.shape)

    def split(self, x: Tensor, N: int) -> Tensor:
        """Cut rows into heads: (N·T, n·D) -> (n, N·h, T, d)."""
        D = len(self.out_proj.bias)
        x = x.view(N, len(x) // N, -1, self.num_heads, D // self.num_heads)
        return x.permute(2, 0, 3, 1, 4).flatten(1, 2)

    def join(self, *parts: Tensor) -> Tensor:
        """And back: n of (N·h, T, d) -> (N·T, n·D)."""
        parts = [part.unflatten(0, (-1, self.num_heads)).transpose(1, 2) for part in parts]
        return torch.stack(parts, dim=2).flatten(2).flatten(0, 1)

    @property
    def weights(self) -> Tensor:
        """How much each token looked at each, in the last forward: (N, h, T, S)."""
        return self.attention.weights.unflatten(0, (-1, self.num_heads))


class CrossAttention(MultiheadAttention):
    """A text asks, another one (the memory) answers: q of x, k and v of the memory.

    Parameters are as of MultiheadAttention; q is a product with the first D rows of W_in, k and v
    are one with the others.
    """

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None = None) -> Tensor:
        """x (N, T, D), memory (N, S, D), a mask that broadcasts to (N·h, T, S) -> (N, T, D)."""
        return self.attend(self.project(x), *self.project_memory(memory), mask)

    def project(self, x: Tensor) -> Tensor:
        """Queries of all heads: x (N, T, D) -> (N·h, T, d)."""
        D, self.x = x.shape[2], x.flatten(0, 1)
        q = torch.addmm(self.in_proj_bias[:D], self.x, self.in_proj_weight[:D].T)
        return self.split(q, len(x))[0]

    def project_memory(self, memory: Tensor) -> Tensor:
        """Keys and values of all heads: memory (N, S, D) -> (2, N·h, S, d)."""
        D, self.memory = memory.shape[2], memory.flatten(0, 1)
        kv = torch.addmm(self.in_proj_bias[D:], self.memory, self.in_proj_weight[D:].T)
        return self.split(kv, len(memory))

    def backward(self, grad_output: Tensor) -> tuple[Tensor, Tensor]:
        """(N, T, D) -> ∂L/∂x (N, T, D), ∂L/∂memory (N, S, D)."""
        N, _, D = grad_output.shape
        grad = self.out_proj.backward(grad_output.flatten(0, 1))
        (grad,) = self.split(grad, N)
        grad_q, grad_k, grad_v = self.attention.backward(grad)
        grad_q, grad_kv = self.join(grad_q), self.join(grad_k, grad_v)  # (N·T, D), (N·S, 2D)
        self.grad_in_proj_weight = torch.cat((grad_q.T @ self.x, grad_kv.T @ self.memory))
        self.grad_in_proj_bias = torch.cat((grad_q.sum(0), grad_kv.sum(0)))
        grad_x, grad_memory = grad_q @ self.in_proj_weight[:D], grad_kv @ self.in_proj_weight[D:]
        return grad_x.view(N, -1, D), grad_memory.view(N, -1, D)


def xavier_uniform(weight: Tensor) -> Tensor:
    """Fill a matrix (out, in) uniformly in ±√(6 / (in + out)). That is a compromise: 3 / in would
    keep the variance in forward, 3 / out in backward (Glorot & Bengio, 2010, Equation 16)."""
    bound = math.sqrt(3.0) * math.sqrt(2.0 / sum(weight.shape))  # bit for bit as nn.init does
    return weight.uniform_(-bound, bound)
