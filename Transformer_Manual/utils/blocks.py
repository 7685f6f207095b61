"""What a Transformer is a stack of: encoder and decoder layers, forward and backward.

N is the batch, S source tokens, T target tokens, D their width, h heads, F the hidden units of the
feed-forward part. Names, order and initial values are nn.Transformer's.
"""

import copy
from collections.abc import Callable

from torch import Tensor

from Transformer_Manual.utils.attention import CrossAttention, MultiheadAttention, xavier_uniform
from Transformer_Manual.utils.layers import GELU, Dropout, Layer, LayerNorm, Linear, ReLU

ACTIVATIONS = {"relu": ReLU, "gelu": GELU}


class TransformerLayer(Layer):
    """What encoder and decoder layers share: the shortcut around each part, and the last part.

    With f one of the parts (attention, feed-forward),

    post-norm, y = norm(x + dropout(f(x))): Vaswani et al., 2017, Section 3.1
    pre-norm,  y = x + dropout(f(norm(x))): Xiong et al., 2020, where nothing but sums lies between
    the last layer and the first: ∂L/∂x = g + (what comes back through f), with g = ∂L/∂y, so a
    gradient arrives whole

    The feed-forward part is two Linear layers that every token goes through by itself.
    """

    def add_feed_forward(self, D: int, F: int, dropout: float, activation: str) -> None:
        if activation not in ACTIVATIONS:
            raise ValueError(f"{activation!r} is none of {', '.join(ACTIVATIONS)}")
        self.linear1 = Linear(D, F)
        self.activation, self.dropout = ACTIVATIONS[activation](), Dropout(dropout)
        self.linear2 = Linear(F, D)

    def add_norms(self, count: int, D: int, dropout: float, norm_first: bool) -> None:
        self.norm_first = norm_first
        for n in range(1, count + 1):
            setattr(self, f"norm{n}", LayerNorm(D))
            setattr(self, f"dropout{n}", Dropout(dropout))

    def shortcut(self, n: int, x: Tensor, part: Callable) -> Tensor:
        """Part number n and the way around it: (N, T, D) -> (N, T, D)."""
        norm, dropout = getattr(self, f"norm{n}"), getattr(self, f"dropout{n}")
        if self.norm_first:
            return x + dropout.forward(part(norm.forward(x)))
        return norm.forward(x + dropout.forward(part(x)))

    def shortcut_backward(self, n: int, grad: Tensor, part_backward: Callable) -> Tensor:
        norm, dropout = getattr(self, f"norm{n}"), getattr(self, f"dropout{n}")
        if self.norm_first:
            return grad + norm.backward(part_backward(dropout.backward(grad)))
        grad = norm.backward(grad)
        return grad + part_backward(dropout.backward(grad))

    def feed_forward(self, x: Tensor) -> Tensor:  # (N, T, D) -> (N, T, D)
        hidden = self.activation.forward(self.linear1.forward(x.flatten(0, 1)))  # (N·T, F)
        return self.linear2.forward(self.dropout.forward(hidden)).view(x.shape)

    def feed_forward_backward(self, grad: Tensor) -> Tensor:
        hidden = self.dropout.backward(self.linear2.backward(grad.flatten(0, 1)))
        return self.linear1.backward(self.activation.backward(hidden)).view(grad.shape)


class EncoderLayer(TransformerLayer):
    """Attention of the text to itself, then the feed-forward part. With a causal mask it is the
    layer of a language model."""

    def __init__(
        self, embed_dim: int, num_heads: int, feedforward_dim: int, dropout: float,
        activation: str, norm_first: bool,
    ):  # fmt: skip
        self.self_attn = MultiheadAttention(embed_dim, num_heads, dropout)
        self.add_feed_forward(embed_dim, feedforward_dim, dropout, activation)
        self.add_norms(2, embed_dim, dropout, norm_first)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:  # (N, S, D) -> (N, S, D)
        x = self.shortcut(1, x, lambda x: self.self_attn.forward(x, mask))
        return self.shortcut(2, x, self.feed_forward)

    def backward(self, grad: Tensor) -> Tensor:  # (N, S, D) -> (N, S, D)
        grad = self.shortcut_backward(2, grad, self.feed_forward_backward)
        return self.shortcut_backward(1, grad, self.self_attn.backward)


class DecoderLayer(TransformerLayer):
    """Attention of the target to itself, then to the memory, then the feed-forward part."""

    def __init__(
        self, embed_dim: int, num_heads: int, feedforward_dim: int, dropout: float,
        activation: str, norm_first: bool,
    ):  # fmt: skip
        self.self_attn = MultiheadAttention(embed_dim, num_heads, dropout)
        self.multihead_attn = CrossAttention(embed_dim, num_heads, dropout)
        self.add_feed_forward(embed_dim, feedforward_dim, dropout, activation)
        self.add_norms(3, embed_dim, dropout, norm_first)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor, memory_mask: Tensor) -> Tensor:
        """x (N, T, D), memory (N, S, D), masks of both attentions -> (N, T, D)."""
        x = self.shortcut(1, x, lambda x: self.self_attn.forward(x, mask))
        x = self.shortcut(2, x, lambda x: self.multihead_attn.forward(x, memory, memory_mask))
        return self.shortcut(3, x, self.feed_forward)

    def backward(self, grad: Tensor) -> tuple[Tensor, Tensor]:
        """(N, T, D) -> ∂L/∂x (N, T, D), ∂L/∂memory (N, S, D)."""
        grad = self.shortcut_backward(3, grad, self.feed_forward_backward)
        grad = self.shortcut_backward(2, grad, self.cross_backward)
        return self.shortcut_backward(1, grad, self.self_attn.backward), self.grad_memory

    def cross_backward(self, grad: Tensor) -> Tensor:
        grad, self.grad_memory = self.multihead_attn.backward(grad)
        return grad


class Stack(Layer):
    """Layers on top of each other, and a norm at the end; all start as copies of the first."""

    def __init__(self, layer: Layer, num_layers: int, embed_dim: int):
        self.layers = [copy.deepcopy(layer) for _ in range(num_layers)]
        self.norm = LayerNorm(embed_dim)

    def children(self) -> dict[str, Layer]:
        layers = {f"layers.{n}": layer for n, layer in enumerate(self.layers)}
        return {**layers, "norm": self.norm}


class Encoder(Stack):
    """(N, S, D) -> (N, S, D)"""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        for layer in self.layers:
            x = layer.forward(x, mask)
        return self.norm.forward(x)

    def backward(self, grad: Tensor) -> Tensor:
        grad = self.norm.backward(grad)
        for layer in reversed(self.layers):
            grad = layer.backward(grad)
        return grad


class Decoder(Stack):
    """(N, T, D) and the memory (N, S, D) -> (N, T, D)"""

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor, memory_mask: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer.forward(x, memory, mask, memory_mask)
        return self.norm.forward(x)

    def backward(self, grad: Tensor) -> tuple[Tensor, Tensor]:
        """-> ∂L/∂x, ∂L/∂memory: every layer has asked the memory, so their gradients add up."""
        grad, grad_memory = self.norm.backward(grad), 0
        for layer in reversed(self.layers):
            grad, from_layer = layer.backward(grad)
            grad_memory = from_layer + grad_memory
        return grad, grad_memory


class EncoderDecoder(Layer):
    """What nn.Transformer holds: an encoder, whose output is the memory of the decoder."""

    def __init__(
        self, embed_dim: int, num_heads: int, num_layers: int, feedforward_dim: int,
        dropout: float, activation: str, norm_first: bool,
    ):  # fmt: skip
        sizes = (embed_dim, num_heads, feedforward_dim, dropout, activation, norm_first)
        self.encoder = Encoder(EncoderLayer(*sizes), num_layers, embed_dim)
        self.decoder = Decoder(DecoderLayer(*sizes), num_layers, embed_dim)
        start_matrices(self)


def start_matrices(layer: Layer) -> None:
    """Fill all matrices by `xavier_uniform`, those of each layer anew."""
    for parameter in layer.parameters().values():
        if parameter.dim() > 1:
            xavier_uniform(parameter)
