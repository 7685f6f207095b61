"""The layer of today's language models, forward and backward: RMSNorm, rotary positions, SwiGLU,
grouped-query attention, QK-norm, no biases. Each is an option by itself.

N is the batch, T tokens, D their width, h heads of d = D/h channels, G heads of keys and values, F
the hidden units of the feed-forward part.
"""

import torch
from torch import Tensor

from Transformer_Manual.utils import blocks
from Transformer_Manual.utils.attention import Attention
from Transformer_Manual.utils.blocks import Encoder, EncoderLayer
from Transformer_Manual.utils.layers import Dropout, Layer, LayerNorm, Linear


class LinearWithoutBias(Linear):
    """y = x Wᵀ    ∂L/∂W = gᵀ x    ∂L/∂x = g W"""

    parameter_names = ("weight",)

    def __init__(self, in_features: int, out_features: int):
        bound = in_features**-0.5  # as nn.Linear
        self.weight = torch.empty(out_features, in_features).uniform_(-bound, bound)

    def forward(self, x: Tensor) -> Tensor:  # (N, in) -> (N, out)
        self.x = x
        return x @ self.weight.T

    def backward(self, grad_output: Tensor) -> Tensor:  # (N, out) -> (N, in)
        self.grad_weight = grad_output.T @ self.x
        return grad_output @ self.weight


class LayerNormWithoutBias(LayerNorm):
    """y = γ x̂, as LayerNorm with a β that stays 0: ∂L/∂γ and ∂L/∂x know nothing of β anyway."""

    parameter_names = ("weight",)

    def forward(self, x: Tensor) -> Tensor:
        self.bias = self.bias.to(x)  # being no parameter, it did not move
        return super().forward(x)


class RMSNorm(Layer):
    """y = γ x̂,  x̂ = x/σ,  σ² = mean(x²) + ε over the last axis (Zhang & Sennrich, 2019, Equation 4)

    LayerNorm without the mean: it stretches a token to the length √D, and shifts nothing.

    With ĝ = g γ = ∂L/∂x̂, and because σ depends on every x of the token by ∂σ/∂xⱼ = xⱼ/(D σ) = x̂ⱼ/D,

    ∂x̂ᵢ/∂xⱼ = [i = j]/σ − xᵢ/σ² · x̂ⱼ/D = ([i = j] − x̂ᵢ x̂ⱼ/D)/σ
    ∂L/∂x = (ĝ − x̂ · mean(ĝ x̂))/σ    ∂L/∂γ = Σ g x̂, over all tokens

    which is LayerNorm's gradient without its mean(ĝ).
    """

    parameter_names = ("weight",)

    def __init__(self, num_features: int, eps: float = 1e-5):
        self.weight = torch.ones(num_features)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:  # (…, D) -> (…, D)
        x = x.to(self.weight)  # in all bits, whatever autocast makes of products
        self.inverse_std = (x * x).mean(-1, keepdim=True).add_(self.eps).rsqrt_()
        self.x_hat = x * self.inverse_std
        return self.x_hat * self.weight

    def backward(self, grad_output: Tensor) -> Tensor:
        D, products = grad_output.shape[-1], grad_output * self.x_hat
        self.grad_weight = products.flatten(0, -2).sum(0)
        mean_product = (products @ self.weight).div_(D)[..., None]  # of ĝ x̂, of each token
        grad = (grad_output * self.weight).sub_(self.x_hat * mean_product)
        return grad.mul_(self.inverse_std)


class Rotary(Layer):
    """y_t = A_t x_t: the channels are points of planes, which turn as the position t grows (Su et
    al., 2021, arXiv:2104.09864, Section 3.2). Nothing is learned, nothing is added to the tokens.

    Channels i and i + d/2 are one point (x₁, x₂). It is turned by t ωᵢ, with ωᵢ = 10000^(−2i/d):

    (x₁, x₂) -> (x₁ cos t ωᵢ − x₂ sin t ωᵢ,  x₁ sin t ωᵢ + x₂ cos t ωᵢ)

    (The paper pairs neighbours. Which are paired does not matter: the matrices before are learned.)

    A_t is orthogonal: A_tᵀ turns back. So the score of a query at t and a key at t′,
    (A_t q) · (A_t′ k) = q · A_tᵀ A_t′ k = q · A_{t′−t} k, knows how far apart they are alone.

    ∂L/∂x_t = A_tᵀ g_t: the gradient is turned back, by −t ωᵢ
    """

    def __init__(self, max_length: int, head_dim: int):
        if head_dim % 2:
            raise ValueError(f"rotary positions turn pairs of channels: {head_dim} are odd")
        omega = 10_000 ** (-torch.arange(0, head_dim, 2) / head_dim)
        angles = torch.arange(max_length)[:, None, None] * omega  # (L, 1, d/2): of each head alike
        self.cos, self.sin = angles.cos(), angles.sin()

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        """x (N, T, heads, d), the first token at position `start` -> the same shape."""
        return self.turn(x, start, 1)

    def backward(self, grad_output: Tensor) -> Tensor:  # (N, T, heads, d), from position 0 on
        return self.turn(grad_output, 0, -1)

    def turn(self, x: Tensor, start: int, direction: int) -> Tensor:
        self.cos, self.sin = self.cos.to(x.device), self.sin.to(x.device)  # they are no parameters
        places = slice(start, start + x.shape[1])
        cos, sin = self.cos[places], self.sin[places] * direction
        x1, x2 = x.chunk(2, dim=-1)
        return torch.cat((x1 * cos - x2 * sin, x1 * sin + x2 * cos), dim=-1)


class SwiGLU(Layer):
    """y = silu(a) c,  silu(a) = a · sigmoid(a), of x = (a, c): one half opens or shuts a gate that
    the other half goes through (Shazeer, 2020, arXiv:2002.05202, Equation 6)

    sigmoid′ = sigmoid (1 − sigmoid), so silu′(a) = sigmoid(a) (1 + a (1 − sigmoid(a))), and

    ∂L/∂a = g c silu′(a)    ∂L/∂c = g silu(a)    ∂L/∂x = (∂L/∂a, ∂L/∂c)
    """

    def forward(self, x: Tensor) -> Tensor:  # (…, 2F) -> (…, F)
        self.a, self.c = x.chunk(2, dim=-1)
        self.sigmoid = self.a.sigmoid()
        self.silu = self.a * self.sigmoid
        return self.silu * self.c

    def backward(self, grad_output: Tensor) -> Tensor:  # (…, F) -> (…, 2F)
        slope = (1 - self.sigmoid).mul_(self.a).add_(1).mul_(self.sigmoid)  # silu′
        return torch.cat((slope.mul_(self.c).mul_(grad_output), grad_output * self.silu), dim=-1)


ACTIVATIONS = {**blocks.ACTIVATIONS, "swiglu": SwiGLU}


class GroupedAttention(Layer):
    """Attention whose h heads of queries share G heads of keys and values, h/G to each (Ainslie et
    al., 2023, arXiv:2305.13245); G = h is multi-head attention, G = 1 multi-query attention.

    (q, k, v) = x W_inᵀ with h, G and G heads    q = A_t norm(q), k = A_t norm(k)
    y = (head₁, …, head_h) W_outᵀ

    where norm is RMSNorm over the d channels of each head, with `qk_norm` alone (Henry et al.,
    2020; Dehghani et al., 2023): with γ = 1, no score is above √d, however large W_in grows. A_t
    (`Rotary`) is there with `rotary` alone.

    Heads that share keys and values differ by their queries alone. So their queries stand below
    each other, as h/G · T queries of one head: the products are those of `Attention`, and its
    ∂L/∂k = (∂L/∂s)ᵀ q/√d and ∂L/∂v = pᵀ g sum over all queries, which includes the sum over the
    heads that share k and v. The rest are Linear layers, a norm and a rotation, in reverse.
    """

    def __init__(
        self, embed_dim: int, num_heads: int, kv_heads: int, dropout: float, bias: bool,
        qk_norm: bool, rotary: bool, max_length: int,
    ):  # fmt: skip
        D, h, G = embed_dim, num_heads, kv_heads
        if D % h:
            raise ValueError(f"a width of {D} cannot be split into {h} equal heads")
        if h % G:
            raise ValueError(f"{h} heads cannot share {G} heads of keys and values equally")
        self.num_heads, self.kv_heads, self.head_dim = h, G, D // h
        self.in_proj = linear(D, (h + 2 * G) * self.head_dim, bias)
        self.out_proj = linear(D, D, bias)
        if bias:  # as nn.MultiheadAttention
            self.in_proj.bias.zero_()
            self.out_proj.bias.zero_()
        self.q_norm = RMSNorm(self.head_dim) if qk_norm else None
        self.k_norm = RMSNorm(self.head_dim) if qk_norm else None
        self.rotary = Rotary(max_length, self.head_dim) if rotary else None
        self.attention = Attention(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x (N, T, D), a mask (1, T, T) -> (N, T, D)."""
        return self.attend(*self.project(x), mask)

    def project(self, x: Tensor, start: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """x (N, T, D), its first token at position `start` -> q (N·G, h/G·T, d), k and v
        (N·G, T, d)."""
        qkv = self.in_proj.forward(x.flatten(0, 1)).unflatten(1, (-1, self.head_dim))
        qkv = qkv.unflatten(0, x.shape[:2])  # (N, T, h + 2G, d)
        q, k, v = qkv.split((self.num_heads, self.kv_heads, self.kv_heads), dim=2)
        if self.q_norm:
            q, k = self.q_norm.forward(q), self.k_norm.forward(k)
        if self.rotary:
            q, k = self.rotary.forward(q, start), self.rotary.forward(k, start)
        return self.group(q), self.group(k), self.group(v)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """q (N·G, h/G·T, d), k and v (N·G, S, d), a mask (1, T, S) -> (N, T, D)."""
        shared = self.num_heads // self.kv_heads
        if mask is not None:
            mask = mask.repeat(1, shared, 1)  # the same for each of the heads that share
        y = self.ungroup(self.attention.forward(q, k, v, mask), q.shape[1] // shared)
        return self.out_proj.forward(y.flatten(2).flatten(0, 1)).unflatten(0, y.shape[:2])

    def backward(self, grad_output: Tensor) -> Tensor:  # (N, T, D) -> (N, T, D)
        N, T, _ = grad_output.shape
        grad = self.out_proj.backward(grad_output.flatten(0, 1))
        grads = self.attention.backward(self.group(grad.view(N, T, self.num_heads, -1)))
        grad_q, grad_k, grad_v = (self.ungroup(grad, T) for grad in grads)
        if self.rotary:
            grad_q, grad_k = self.rotary.backward(grad_q), self.rotary.backward(grad_k)
        if self.q_norm:
            grad_q, grad_k = self.q_norm.backward(grad_q), self.k_norm.backward(grad_k)
        grad = torch.cat((grad_q, grad_k, grad_v), dim=2)  # (N, T, h + 2G, d)
        return self.in_proj.backward(grad.flatten(2).flatten(0, 1)).view(grad_output.shape)

    def group(self, x: Tensor) -> Tensor:
        """Heads that share keys and values below each other: (N, T, n, d) -> (N·G, n/G·T, d)."""
        x = x.unflatten(2, (self.kv_heads, -1)).permute(0, 2, 3, 1, 4)  # (N, G, n/G, T, d)
        return x.flatten(2, 3).flatten(0, 1)

    def ungroup(self, x: Tensor, T: int) -> Tensor:
        """And back: (N·G, n/G·T, d) -> (N, T, n, d)."""
        x = x.unflatten(1, (-1, T)).unflatten(0, (-1, self.kv_heads))  # (N, G, n/G, T, d)
        return x.permute(0, 3, 1, 2, 4).flatten(2, 3)

    @property
    def weights(self) -> Tensor:
        """How much each token looked at each, in the last forward: (N, h, T, S)."""
        weights = self.attention.weights.unflatten(0, (-1, self.kv_heads))  # (N, G, h/G·T, S)
        return weights.unflatten(2, (self.num_heads // self.kv_heads, -1)).flatten(1, 2)


class ModernLayer(EncoderLayer):
    """Attention of the text to itself, then the feed-forward part, as EncoderLayer, of the parts
    above. SwiGLU's gate doubles the rows of `linear1`."""

    def __init__(
        self, embed_dim: int, num_heads: int, feedforward_dim: int, dropout: float,
        activation: str, norm_first: bool, rotary: bool, max_length: int, norm: str,
        kv_heads: int, bias: bool, qk_norm: bool,
    ):  # fmt: skip
        if activation not in ACTIVATIONS:
            raise ValueError(f"{activation!r} is none of {', '.join(ACTIVATIONS)}")
        D, F, gated = embed_dim, feedforward_dim, activation == "swiglu"
        self.self_attn = GroupedAttention(
            D, num_heads, kv_heads, dropout, bias, qk_norm, rotary, max_length
        )
        self.linear1 = linear(D, 2 * F if gated else F, bias)
        self.activation, self.dropout = ACTIVATIONS[activation](), Dropout(dropout)
        self.linear2 = linear(F, D, bias)
        self.norm_first = norm_first
        self.norm1, self.norm2 = make_norm(norm, D, bias), make_norm(norm, D, bias)
        self.dropout1, self.dropout2 = Dropout(dropout), Dropout(dropout)


class ModernEncoder(Encoder):
    """(N, T, D) -> (N, T, D), its last norm of the layers' kind."""

    def __init__(self, layer: ModernLayer, num_layers: int, embed_dim: int, norm: str, bias: bool):
        super().__init__(layer, num_layers, embed_dim)
        self.norm = make_norm(norm, embed_dim, bias)


NORMS = ("layer", "rms")


def make_norm(name: str, D: int, bias: bool) -> Layer:
    if name not in NORMS:
        raise ValueError(f"{name!r} is none of {', '.join(NORMS)}")
    if name == "rms":
        return RMSNorm(D)
    return LayerNorm(D) if bias else LayerNormWithoutBias(D)


def linear(in_features: int, out_features: int, bias: bool) -> Linear:
    return (Linear if bias else LinearWithoutBias)(in_features, out_features)
