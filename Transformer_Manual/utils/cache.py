"""One token after the other with the same weights: keys and values of what was read are kept.

The plain way reads everything again for each new token, O(T²) tokens for a text of T; here each is
read once. n are the texts that are written at the same time, D = h · d their width. The networks
are in evaluation mode.
"""

import torch
from torch import Tensor

from Transformer_Manual.model import LanguageModel, Transformer
from Transformer_Manual.utils.attention import MultiheadAttention, causal_mask
from Transformer_Manual.utils.blocks import DecoderLayer, EncoderLayer
from Transformer_Manual.utils.modern import GroupedAttention


def take(heads: Tensor, rows: Tensor, num_heads: int) -> Tensor:
    """Of what all heads have, (n·h, …), the texts with these numbers: (m,) -> (m·h, …)."""
    return heads.unflatten(0, (-1, num_heads))[rows].flatten(0, 1)


class Past:
    """Keys and values (n·h, T, d) of one layer's self-attention, of all tokens so far."""

    def __init__(self, num_heads: int):
        self.num_heads = num_heads  # of keys and values
        self.keys = self.values = None

    def attend(self, attention: MultiheadAttention | GroupedAttention, x: Tensor) -> Tensor:
        """x (n, T, D), the first tokens or one more -> (n, T, D)."""
        q, k, v = attention.project(x, 0 if self.keys is None else self.keys.shape[1])
        if self.keys is not None:
            k, v = torch.cat([self.keys, k], dim=1), torch.cat([self.values, v], dim=1)
        self.keys, self.values = k, v
        return attention.attend(q, k, v, causal_mask(x.shape[1], x) if x.shape[1] > 1 else None)

    def select(self, rows: Tensor) -> None:
        """Go on with these texts: (m,) numbers of some of the n, also the same ones again."""
        self.keys, self.values = (
            take(part, rows, self.num_heads) for part in (self.keys, self.values)
        )


def encoder_step(layer: EncoderLayer, x: Tensor, past: Past) -> Tensor:
    """x (n, T, D) -> (n, T, D)"""
    x = layer.shortcut(1, x, lambda y: past.attend(layer.self_attn, y))
    return layer.shortcut(2, x, layer.feed_forward)


def decoder_step(
    layer: DecoderLayer, x: Tensor, past: Past, memory: tuple[Tensor, Tensor], mask: Tensor
) -> Tensor:
    """x (N, B, D), the last token of each beam -> (N, B, D)."""

    def self_attention(y: Tensor) -> Tensor:  # each beam has a past of its own
        return past.attend(layer.self_attn, y.flatten(0, 1)[:, None]).view(y.shape)

    def cross_attention(y: Tensor) -> Tensor:  # all beams of a sentence look at one source
        return layer.multihead_attn.attend(layer.multihead_attn.project(y), *memory, mask)

    x = layer.shortcut(1, x, self_attention)
    x = layer.shortcut(2, x, cross_attention)
    return layer.shortcut(3, x, layer.feed_forward)


class CachedDecoder:
    """A Transformer's decoder for N sentences with B beginnings of a translation each ("beams").

    The encoder runs once; the cross-attention's keys and values are computed once for all beams.
    """

    def __init__(self, model: Transformer, source: Tensor):  # (N, S)
        self.model, self.length, self.N = model, 0, len(source)
        self.layers = model.transformer.decoder.layers
        memory, self.mask = model.encode(source)  # (N, S, D), (N·h, 1, S)
        self.memory = [layer.multihead_attn.project_memory(memory) for layer in self.layers]
        self.pasts = [Past(model.num_heads) for _ in self.layers]

    def step(self, tokens: Tensor) -> Tensor:
        """The last token of each beam (N, B) -> logits (N, B, V) of the next."""
        N, B = tokens.shape
        x = self.model.embed(tokens.reshape(N * B, 1), self.model.target_dropout, self.length)
        x = x.view(N, B, -1)
        for layer, past, memory in zip(self.layers, self.pasts, self.memory, strict=True):
            x = decoder_step(layer, x, past, memory, self.mask)
        self.length += 1
        return self.model.embedding.logits(self.model.transformer.decoder.norm.forward(x))

    def select(self, sentences: Tensor, beams: Tensor) -> None:
        """Go on with these sentences alone: (M,), ascending; beams (M, B) says which beam of before
        each of their beams continues."""
        h = self.model.num_heads
        B = len(self.pasts[0].keys) // (self.N * h)
        rows = (sentences[:, None] * B + beams).flatten()
        for past in self.pasts:
            past.select(rows)
        if len(sentences) < self.N:
            self.mask, self.N = take(self.mask, sentences, h), len(sentences)
            self.memory = [[take(part, sentences, h) for part in parts] for parts in self.memory]


class CachedReader:
    """A language model that goes on reading: only what is new is computed."""

    def __init__(self, model: LanguageModel):
        self.model, self.length = model, 0
        self.pasts = [Past(model.kv_heads) for _ in model.encoder.layers]

    def read(self, tokens: Tensor) -> Tensor:
        """tokens (n, T), the first ones or one more -> logits (n, V) of the token after the last.

        Raises ValueError when they are more than the model's max_length together.
        """
        x = self.model.embed(tokens, self.model.dropout, self.length)
        self.length += tokens.shape[1]
        for layer, past in zip(self.model.encoder.layers, self.pasts, strict=True):
            x = encoder_step(layer, x, past)
        return self.model.embedding.logits(self.model.encoder.norm.forward(x[:, -1:]))[:, 0]
