"""The layer of today's language models: RMSNorm, rotary positions, SwiGLU, grouped-query attention,
QK-norm, no biases. Each is an option by itself.

N is the batch, T tokens, S those that are looked at, D their width, h heads of d = D/h channels, G
heads of keys and values.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NORMS = ("layer", "rms")
ACTIVATIONS = ("relu", "gelu", "swiglu")


class RMSNorm(nn.Module):
    """y = γ x/σ,  σ² = mean(x²) + ε over the last axis (Zhang & Sennrich, 2019, Equation 4).

    torch has nn.RMSNorm since 2.4.
    """

    def __init__(self, num_features: int, eps: float = 1e-5):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(num_features)), eps

    def forward(self, x: Tensor) -> Tensor:  # (…, D) -> (…, D)
        x = x.to(self.weight.dtype)  # in all bits, whatever autocast makes of products
        return x * (x.square().mean(-1, keepdim=True) + self.eps).rsqrt() * self.weight


class Rotary(nn.Module):
    """Channels i and i + d/2 are a point of a plane, turned at position t by the angle
    t · 10000^(−2i/d) (Su et al., 2021, arXiv:2104.09864, Section 3.2), so that the score of a query
    and a key depends on how far apart they are."""

    def __init__(self, max_length: int, head_dim: int):
        super().__init__()
        if head_dim % 2:
            raise ValueError(f"rotary positions turn pairs of channels: {head_dim} are odd")
        omega = 10_000 ** (-torch.arange(0, head_dim, 2) / head_dim)
        angles = torch.arange(max_length)[:, None] * omega  # (L, d/2)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        """x (N, heads, T, d), the first token at position `start` -> the same shape."""
        places = slice(start, start + x.shape[2])
        cos, sin = self.cos[places], self.sin[places]
        x1, x2 = x.chunk(2, dim=-1)
        return torch.cat((x1 * cos - x2 * sin, x1 * sin + x2 * cos), dim=-1)


class SwiGLU(nn.Module):
    """y = silu(a) c of x = (a, c) (Shazeer, 2020, arXiv:2002.05202, Equation 6)."""

    def forward(self, x: Tensor) -> Tensor:  # (…, 2F) -> (…, F)
        a, c = x.chunk(2, dim=-1)
        return F.silu(a) * c


class GroupedAttention(nn.Module):
    """Causal attention whose h heads of queries share G heads of keys and values, h/G to each
    (Ainslie et al., 2023, arXiv:2305.13245), with RMSNorm of every query and key (`qk_norm`) and
    `rotary` positions where asked for."""

    def __init__(
        self, embed_dim: int, num_heads: int, kv_heads: int, dropout: float, bias: bool,
        qk_norm: bool, rotary: bool, max_length: int,
    ):  # fmt: skip
        super().__init__()
        D, h, G = embed_dim, num_heads, kv_heads
        if h % G:
            raise ValueError(f"{h} heads cannot share {G} heads of keys and values equally")
        self.num_heads, self.kv_heads, self.head_dim, self.dropout = h, G, D // h, dropout
        self.in_proj = nn.Linear(D, (h + 2 * G) * self.head_dim, bias)
        self.out_proj = nn.Linear(D, D, bias)
        if bias:  # as nn.MultiheadAttention
            nn.init.zeros_(self.in_proj.bias)
            nn.init.zeros_(self.out_proj.bias)
        self.q_norm = RMSNorm(self.head_dim) if qk_norm else nn.Identity()
        self.k_norm = RMSNorm(self.head_dim) if qk_norm else nn.Identity()
        self.rotary = Rotary(max_length, self.head_dim) if rotary else None

    def forward(self, x: Tensor, past=None) -> Tensor:
        """x (N, T, D) -> (N, T, D); what is in `past`, a Past of utils/cache.py, was read before,
        and x is one token."""
        q, k, v = self.project(x, 0 if past is None else past.length)
        if past is not None:
            k, v = past.append(k, v)
        dropout = self.dropout if self.training else 0.0
        # the first T tokens look back alone; one more token looks at everything
        y = F.scaled_dot_product_attention(
            q, self.share(k), self.share(v), dropout_p=dropout, is_causal=x.shape[1] > 1
        )
        return self.out_proj(y.transpose(1, 2).flatten(2))

    def project(self, x: Tensor, start: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """x (N, T, D), its first token at position `start` -> q (N, h, T, d), k and v
        (N, G, T, d)."""
        qkv = self.in_proj(x).unflatten(2, (-1, self.head_dim)).transpose(1, 2)
        q, k, v = qkv.split((self.num_heads, self.kv_heads, self.kv_heads), dim=1)
        q, k = self.q_norm(q), self.k_norm(k)
        if self.rotary is not None:
            q, k = self.rotary(q, start), self.rotary(k, start)
        return q.to(v.dtype), k.to(v.dtype), v  # autocast leaves norms and turns in all bits

    def share(self, x: Tensor) -> Tensor:
        """Keys or values for each head of queries: (N, G, S, d) -> (N, h, S, d)."""
        shares = self.num_heads // self.kv_heads
        return x.unsqueeze(2).expand(-1, -1, shares, -1, -1).flatten(1, 2)

    def weights(self, x: Tensor) -> Tensor:
        """How much each token looks at each, which the fused kernel never stores:
        (N, T, D) -> (N, h, T, T)."""
        q, k, _ = self.project(x)
        scores = q @ self.share(k).transpose(2, 3) * self.head_dim**-0.5
        future = torch.ones(scores.shape[2:], dtype=torch.bool, device=x.device).triu(1)
        return scores.masked_fill(future, -torch.inf).softmax(3)


class ModernLayer(nn.Module):
    """Attention, then the feed-forward part, each with a norm, dropout and a way around it: what
    nn.TransformerEncoderLayer is, of the parts above. SwiGLU's gate doubles `linear1`'s rows."""

    def __init__(
        self, embed_dim: int, num_heads: int, feedforward_dim: int, dropout: float,
        activation: str, norm_first: bool, rotary: bool, max_length: int, norm: str,
        kv_heads: int, bias: bool, qk_norm: bool,
    ):  # fmt: skip
        super().__init__()
        D, hidden, gated = embed_dim, feedforward_dim, activation == "swiglu"
        self.self_attn = GroupedAttention(
            D, num_heads, kv_heads, dropout, bias, qk_norm, rotary, max_length
        )
        self.linear1 = nn.Linear(D, 2 * hidden if gated else hidden, bias)
        self.activation = {"relu": nn.ReLU, "gelu": nn.GELU, "swiglu": SwiGLU}[activation]()
        self.dropout = nn.Dropout(dropout)
        self.linear2 = nn.Linear(hidden, D, bias)
        self.norm_first = norm_first
        self.norm1, self.norm2 = make_norm(norm, D, bias), make_norm(norm, D, bias)
        self.dropout1, self.dropout2 = nn.Dropout(dropout), nn.Dropout(dropout)

    def forward(self, x: Tensor, past=None) -> Tensor:  # (N, T, D) -> (N, T, D)
        if self.norm_first:
            x = x + self.dropout1(self.self_attn(self.norm1(x), past))
            return x + self.dropout2(self.feed_forward(self.norm2(x)))
        x = self.norm1(x + self.dropout1(self.self_attn(x, past)))
        return self.norm2(x + self.dropout2(self.feed_forward(x)))

    def feed_forward(self, x: Tensor) -> Tensor:
        return self.linear2(self.dropout(self.activation(self.linear1(x))))


class ModernEncoder(nn.Module):
    """(N, T, D) -> (N, T, D), causal: layers that start as copies, and a norm of their kind."""

    def __init__(self, layer: ModernLayer, num_layers: int, embed_dim: int, norm: str, bias: bool):
        super().__init__()
        self.layers = nn.ModuleList(copy.deepcopy(layer) for _ in range(num_layers))
        self.norm = make_norm(norm, embed_dim, bias)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)


def make_norm(name: str, D: int, bias: bool) -> nn.Module:
    return RMSNorm(D) if name == "rms" else nn.LayerNorm(D, bias=bias)
