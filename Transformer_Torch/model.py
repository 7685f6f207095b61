"""The Transformer (Vaswani et al., 2017, arXiv:1706.03762) for translation, and its decoder alone
as a language model, of the layers that torch.nn has.

N is the batch, S source tokens, T target tokens, D embed_dim, h heads, V the vocabulary.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from Transformer_Torch.utils.modern import ACTIVATIONS, NORMS, ModernEncoder, ModernLayer

PAD = 0  # the number of padding
POSITIONS = ("sinusoidal", "learned", "rotary")  # rotary ones are in the attention


def sinusoids(length: int, D: int) -> Tensor:
    """(length, D): channel 2i is sin(t ωᵢ) and 2i + 1 cos(t ωᵢ), with ωᵢ = 10000^(−2i/D).

    (Section 3.5.) From t to t + k each pair is turned by the angle k ωᵢ, whatever t is.
    """
    omega = 10_000 ** (-torch.arange(0, D, 2) / D)
    angles = torch.arange(length)[:, None] * omega  # (length, D/2)
    positions = torch.stack([angles.sin(), angles.cos()], dim=2)
    return positions.flatten(1)[:, :D]


class SinusoidalPositions(nn.Module):
    """Where nn.Embedding has a parameter of the same shape: a table that is known, not learned."""

    def __init__(self, max_length: int, embed_dim: int):
        super().__init__()
        self.register_buffer("weight", sinusoids(max_length, embed_dim), persistent=False)


class Tokens(nn.Module):
    """What both networks begin and end with: tokens -> vectors, and vectors -> logits.

    One matrix of V rows serves as embedding of all tokens and, transposed, as the last layer
    (section 3.4; Press & Wolf, 2017, arXiv:1608.05859).
    """

    not_hidden = ("embedding.", "positions.")  # Muon leaves them to AdamW

    def __init__(
        self, vocab_size: int, embed_dim: int, num_heads: int, dropout: float, activation: str,
        positions: str, max_length: int,
    ):  # fmt: skip
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(f"a width of {embed_dim} cannot be split into {num_heads} equal heads")
        for name, known in ((activation, ACTIVATIONS), (positions, POSITIONS)):
            if name not in known:
                raise ValueError(f"{name!r} is none of {', '.join(known)}")
        self.max_length = max_length
        self.embedding = nn.Embedding(vocab_size, embed_dim)
        with torch.no_grad():  # from N(0, 1), so that √D times as much, the input, has variance 1
            self.embedding.weight *= embed_dim**-0.5
        if positions == "learned":
            self.positions = nn.Embedding(max_length, embed_dim)
            with torch.no_grad():  # from N(0, ½), as large as the sinusoids beside the input
                self.positions.weight *= 0.5**0.5
        elif positions == "sinusoidal":
            self.positions = SinusoidalPositions(max_length, embed_dim)
        else:
            self.positions = None
        self.dropout = nn.Dropout(dropout)

    def embed(self, tokens: Tensor, start: int = 0) -> Tensor:
        """(N, T) -> (N, T, D); the first token is at position `start`."""
        end = start + tokens.shape[1]
        if end > self.max_length:
            raise ValueError(f"{end} tokens are more than the max_length of {self.max_length}")
        x = self.embedding(tokens) * self.embedding.embedding_dim**0.5
        if self.positions is not None:
            x = x + self.positions.weight[start:end]
        return self.dropout(x)

    def logits(self, x: Tensor) -> Tensor:  # (N, T, D) -> (N, T, V)
        return F.linear(x, self.embedding.weight)


def causal_mask(x: Tensor) -> Tensor:
    """x (N, T, D) -> (T, T): −∞ where a token would see a later one, else 0; added to the scores.

    nn.MultiheadAttention wants it beside `is_causal=True`, and then gives the fused kernel the hint
    alone; PyTorch's inference path for whole encoder layers reads it.
    """
    T = x.shape[1]
    return nn.Transformer.generate_square_subsequent_mask(T, device=x.device, dtype=x.dtype)


class Transformer(Tokens):
    """An encoder reads the source, a decoder writes the target: source (N, S), target (N, T) ->
    logits (N, T, V) of the token after each of the target.

    Every attention is PyTorch's fused `scaled_dot_product_attention`, which nn.MultiheadAttention
    uses when nobody asks for its weights. Without arguments, the README's larger network for
    Multi30k.
    """

    extra_length = 10  # tokens of a translation beyond twice its source's: build_model's

    def __init__(
        self,
        vocab_size: int = 8000,
        embed_dim: int = 256,
        num_heads: int = 4,
        num_layers: int = 3,
        feedforward_dim: int = 1024,
        dropout: float = 0.1,
        activation: str = "relu",
        norm_first: bool = True,
        positions: str = "sinusoidal",
        max_length: int = 256,
    ):
        if positions == "rotary" or activation == "swiglu":
            raise ValueError("rotary positions and swiglu are for the LanguageModel")
        super().__init__(
            vocab_size, embed_dim, num_heads, dropout, activation, positions, max_length
        )
        sizes = (embed_dim, num_heads, feedforward_dim, dropout, activation)
        layer = nn.TransformerEncoderLayer(*sizes, batch_first=True, norm_first=norm_first)
        self.transformer = nn.Transformer(
            embed_dim, num_heads, num_layers, num_layers, feedforward_dim, dropout, activation,
            # as nn.Transformer's own, which would warn that norm_first goes without nested tensors
            custom_encoder=nn.TransformerEncoder(
                layer, num_layers, nn.LayerNorm(embed_dim), enable_nested_tensor=False
            ),
            batch_first=True, norm_first=norm_first,
        )  # fmt: skip

    def encode(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """source (N, S) -> memory (N, S, D), and which of its places are padding (N, S)."""
        padding = source == PAD
        padding[:, 0] = False  # a softmax over nothing at all would be NaN: of padding alone, one
        memory = self.transformer.encoder(self.embed(source), src_key_padding_mask=padding)
        return memory, padding

    def decode(self, target: Tensor, memory: Tensor, padding: Tensor) -> Tensor:
        """target (N, T) and what `encode` gave -> logits (N, T, V).

        Padding of the target needs no mask: it stands at the end, where no token looks.
        """
        x = self.embed(target)
        x = self.transformer.decoder(
            x, memory, tgt_mask=causal_mask(x), tgt_is_causal=True, memory_key_padding_mask=padding
        )
        return self.logits(x)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        return self.decode(target, *self.encode(source))


class LanguageModel(Tokens):
    """A Transformer that reads and writes one text: tokens (N, T) -> logits (N, T, V) of the next.

    Without a source there is no cross-attention, so PyTorch calls its layers those of an encoder;
    with the causal mask they are a decoder's (Radford et al., 2018: GPT). With any of rotary
    positions, SwiGLU, RMSNorm (`norm`), fewer heads of keys and values than of queries
    (`kv_heads`), no biases or norms of queries and keys (`qk_norm`), layers are `ModernLayer`s.
    Without arguments, the README's larger network for tiny-shakespeare.
    """

    def __init__(
        self,
        vocab_size: int = 65,
        embed_dim: int = 256,
        num_heads: int = 4,
        num_layers: int = 4,
        feedforward_dim: int = 1024,
        dropout: float = 0.1,
        activation: str = "gelu",
        norm_first: bool = True,
        positions: str = "sinusoidal",
        max_length: int = 128,
        norm: str = "layer",
        kv_heads: int | None = None,
        bias: bool = True,
        qk_norm: bool = False,
    ):
        super().__init__(
            vocab_size, embed_dim, num_heads, dropout, activation, positions, max_length
        )
        if norm not in NORMS:
            raise ValueError(f"{norm!r} is none of {', '.join(NORMS)}")
        sizes = (embed_dim, num_heads, feedforward_dim, dropout, activation)
        rotary, kv_heads = positions == "rotary", kv_heads or num_heads
        original = norm == "layer" and kv_heads == num_heads and bias and not qk_norm
        if original and not rotary and activation != "swiglu":
            layer = nn.TransformerEncoderLayer(*sizes, batch_first=True, norm_first=norm_first)
            self.encoder = nn.TransformerEncoder(
                layer, num_layers, nn.LayerNorm(embed_dim), enable_nested_tensor=False
            )
        else:
            layer = ModernLayer(
                *sizes, norm_first, rotary, max_length, norm, kv_heads, bias, qk_norm
            )
            self.encoder = ModernEncoder(layer, num_layers, embed_dim, norm, bias)
        for parameter in self.encoder.parameters():  # its layers are copies, alike so far;
            if parameter.dim() > 1:  # nn.Transformer does this by itself
                nn.init.xavier_uniform_(parameter)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        if isinstance(self.encoder, ModernEncoder):  # it looks back alone
            return self.logits(self.encoder(x))
        return self.logits(self.encoder(x, mask=causal_mask(x), is_causal=True))
