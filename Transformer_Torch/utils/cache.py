"""One token after the other with the same weights: keys and values of what was read are kept.

The plain way reads everything again for each new token, O(T²) tokens for a text of T; here each is
read once. nn's layers know no cache, so their few lines stand here again, for evaluation mode.
n are the texts that are written at the same time, D = h · d their width.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from Transformer_Torch.model import LanguageModel, Transformer
from Transformer_Torch.utils.modern import ModernLayer

QUERY, KEY_VALUE, ALL = slice(0, 1), slice(1, 3), slice(0, 3)  # in thirds of in_proj_weight's rows


def project(attention: nn.MultiheadAttention, x: Tensor, parts: slice) -> tuple[Tensor, ...]:
    """x (n, T, D) -> queries, keys and values of all heads, or some of these: (n, h, T, d) each."""
    D = attention.embed_dim
    rows = slice(parts.start * D, parts.stop * D)
    y = F.linear(x, attention.in_proj_weight[rows], attention.in_proj_bias[rows])
    y = y.unflatten(2, (-1, attention.num_heads, attention.head_dim))
    return y.permute(2, 0, 3, 1, 4).unbind(0)


def attend(
    attention: nn.MultiheadAttention, q: Tensor, k: Tensor, v: Tensor, **mask
) -> Tensor:  # (n, h, T, d), 2 x (n, h, S, d) -> (n, T, D)
    x = F.scaled_dot_product_attention(q, k, v, **mask)
    return attention.out_proj(x.transpose(1, 2).flatten(2))


class Past:
    """Keys and values (n, h, T, d) of one layer's self-attention, of all tokens so far."""

    def __init__(self):
        self.keys = self.values = None

    @property
    def length(self) -> int:
        return 0 if self.keys is None else self.keys.shape[2]

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Those of all tokens, these last ones too."""
        if self.keys is not None:
            keys = torch.cat([self.keys, keys], dim=2)
            values = torch.cat([self.values, values], dim=2)
        self.keys, self.values = keys, values
        return keys, values

    def attend(self, attention: nn.MultiheadAttention, x: Tensor) -> Tensor:
        """x (n, T, D), the first tokens or one more -> (n, T, D)."""
        q, k, v = project(attention, x, ALL)
        return attend(attention, q, *self.append(k, v), is_causal=x.shape[1] > 1)

    def select(self, rows: Tensor) -> None:
        """Go on with these texts: (m,) numbers of some of the n, also the same ones again."""
        self.keys, self.values = self.keys[rows], self.values[rows]


def residual(x: Tensor, norm: nn.Module, norm_first: bool, function: Callable) -> Tensor:
    return x + function(norm(x)) if norm_first else norm(x + function(x))


def feed_forward(layer, x: Tensor) -> Tensor:
    return layer.linear2(layer.activation(layer.linear1(x)))


def encoder_step(layer: nn.TransformerEncoderLayer | ModernLayer, x: Tensor, past: Past) -> Tensor:
    """x (n, T, D) -> (n, T, D)"""
    if isinstance(layer, ModernLayer):
        return layer(x, past)
    x = residual(x, layer.norm1, layer.norm_first, lambda y: past.attend(layer.self_attn, y))
    return residual(x, layer.norm2, layer.norm_first, lambda y: feed_forward(layer, y))


def decoder_step(
    layer: nn.TransformerDecoderLayer, x: Tensor, past: Past, memory: tuple[Tensor, Tensor],
    visible: Tensor,
) -> Tensor:  # fmt: skip
    """x (N, B, D), the last token of each beam -> (N, B, D)."""

    def self_attention(y: Tensor) -> Tensor:  # each beam has a past of its own
        return past.attend(layer.self_attn, y.flatten(0, 1)[:, None]).view_as(y)

    def cross_attention(y: Tensor) -> Tensor:  # all beams of a sentence look at one source
        (q,) = project(layer.multihead_attn, y, QUERY)
        return attend(layer.multihead_attn, q, *memory, attn_mask=visible)

    x = residual(x, layer.norm1, layer.norm_first, self_attention)
    x = residual(x, layer.norm2, layer.norm_first, cross_attention)
    return residual(x, layer.norm3, layer.norm_first, lambda y: feed_forward(layer, y))


class CachedDecoder:
    """A Transformer's decoder for N sentences with B beginnings of a translation each ("beams").

    The encoder runs once; the cross-attention's keys and values are computed once for all beams.
    """

    def __init__(self, model: Transformer, source: Tensor):  # (N, S)
        self.model, self.length = model, 0
        self.layers = model.transformer.decoder.layers
        memory, padding = model.encode(source)
        self.visible = ~padding[:, None, None]  # (N, 1, 1, S)
        self.memory = [project(layer.multihead_attn, memory, KEY_VALUE) for layer in self.layers]
        self.pasts = [Past() for _ in self.layers]

    def step(self, tokens: Tensor) -> Tensor:
        """The last token of each beam (N, B) -> logits (N, B, V) of the next."""
        N, B = tokens.shape
        x = self.model.embed(tokens.reshape(N * B, 1), start=self.length).view(N, B, -1)
        for layer, past, memory in zip(self.layers, self.pasts, self.memory, strict=True):
            x = decoder_step(layer, x, past, memory, self.visible)
        self.length += 1
        return self.model.logits(self.model.transformer.decoder.norm(x))

    def select(self, sentences: Tensor, beams: Tensor) -> None:
        """Go on with these sentences alone: (M,), ascending; beams (M, B) says which beam of before
        each of their beams continues."""
        B = len(self.pasts[0].keys) // len(self.visible)
        rows = (sentences[:, None] * B + beams).flatten()
        for past in self.pasts:
            past.select(rows)
        if len(sentences) < len(self.visible):
            self.visible = self.visible[sentences]
            self.memory = [(keys[sentences], values[sentences]) for keys, values in self.memory]


class CachedReader:
    """A language model that goes on reading: only what is new is computed."""

    def __init__(self, model: LanguageModel):
        self.model, self.length = model, 0
        self.pasts = [Past() for _ in model.encoder.layers]

    def read(self, tokens: Tensor) -> Tensor:
        """tokens (n, T), the first ones or one more -> logits (n, V) of the token after the last.

        Raises ValueError when they are more than the model's max_length together.
        """
        x = self.model.embed(tokens, start=self.length)
        self.length += tokens.shape[1]
        for layer, past in zip(self.model.encoder.layers, self.pasts, strict=True):
            x = encoder_step(layer, x, past)
        return self.model.logits(self.model.encoder.norm(x[:, -1]))
