"""The Transformer (Vaswani et al., 2017, arXiv:1706.03762) for translation, and its decoder alone
as a language model, by hand.

N is the batch, S source tokens, T target tokens, D embed_dim, h heads, V the vocabulary.
"""

from torch import Tensor

from Transformer_Manual.utils.attention import causal_mask, padding_mask
from Transformer_Manual.utils.blocks import Encoder, EncoderDecoder, EncoderLayer, start_matrices
from Transformer_Manual.utils.embedding import (
    LearnedPositions,
    NoPositions,
    SinusoidalPositions,
    TiedEmbedding,
)
from Transformer_Manual.utils.layers import Dropout, Layer
from Transformer_Manual.utils.modern import ModernEncoder, ModernLayer

PAD = 0  # the number of padding
POSITIONS = {  # rotary ones are in the attention
    "sinusoidal": SinusoidalPositions, "learned": LearnedPositions, "rotary": NoPositions,
}  # fmt: skip


class Tokens(Layer):
    """What both networks begin and end with: tokens -> vectors, and vectors -> logits.

    x = dropout(√D W[token] + position)    logits = x Wᵀ
    """

    not_hidden = ("embedding.", "positions.")  # Muon leaves them to AdamW

    def __init__(
        self, vocab_size: int, embed_dim: int, num_heads: int, dropout: float, positions: str,
        max_length: int,
    ):  # fmt: skip
        if positions not in POSITIONS:
            raise ValueError(f"{positions!r} is none of {', '.join(POSITIONS)}")
        self.num_heads, self.max_length = num_heads, max_length
        self.embedding = TiedEmbedding(vocab_size, embed_dim)
        self.positions = POSITIONS[positions](max_length, embed_dim)
        self.dropout = Dropout(dropout)

    def embed(self, tokens: Tensor, dropout: Dropout, start: int = 0) -> Tensor:
        """(N, T) -> (N, T, D); the first token is at position `start`."""
        end = start + tokens.shape[1]
        if end > self.max_length:
            raise ValueError(f"{end} tokens are more than the max_length of {self.max_length}")
        return dropout.forward(self.positions.forward(self.embedding.lookup(tokens), start))

    def embed_backward(self, *uses: tuple[Tensor, Dropout, Tensor]) -> None:
        """Of every `embed` its tokens, its dropout and ∂L/∂x: they share W and the positions."""
        grads = [dropout.backward(grad) for _, dropout, grad in uses]
        self.positions.backward(*grads)
        for (tokens, *_), grad in zip(uses, grads, strict=True):
            self.embedding.lookup_backward(tokens, grad)

    def match_types(self) -> None:
        """Give every gradient the type of its parameter: under autocast, products have fewer bits,
        and so has what is made of them."""
        for _, layer in self.modules():
            for name in layer.parameter_names:
                gradient = getattr(layer, "grad_" + name)
                setattr(layer, "grad_" + name, gradient.to(getattr(layer, name)))


class Transformer(Tokens):
    """An encoder reads the source, a decoder writes the target: source (N, S), target (N, T) ->
    logits (N, T, V) of the token after each of the target.

    Without arguments, the README's larger network for Multi30k.
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
        if positions == "rotary":
            raise ValueError("rotary positions are for the LanguageModel")
        super().__init__(vocab_size, embed_dim, num_heads, dropout, positions, max_length)
        self.target_dropout = Dropout(dropout)
        self.transformer = EncoderDecoder(
            embed_dim, num_heads, num_layers, feedforward_dim, dropout, activation, norm_first
        )

    def encode(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """source (N, S) -> memory (N, S, D), and the mask that hides its padding (N·h, 1, S)."""
        x = self.embed(source, self.dropout)
        mask = padding_mask(source == PAD, self.num_heads, like=x)
        return self.transformer.encoder.forward(x, mask), mask

    def decode(self, target: Tensor, memory: Tensor, memory_mask: Tensor) -> Tensor:
        """target (N, T) and what `encode` gave -> logits (N, T, V).

        Padding of the target needs no mask: it stands at the end, where no token looks.
        """
        x = self.embed(target, self.target_dropout)
        mask = causal_mask(target.shape[1], like=x)
        x = self.transformer.decoder.forward(x, memory, mask, memory_mask)
        return self.embedding.logits(x)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        self.source, self.target = source, target
        return self.decode(target, *self.encode(source))

    def backward(self, grad_logits: Tensor) -> None:  # (N, T, V) ->
        grad = self.embedding.logits_backward(grad_logits)
        grad_target, grad_memory = self.transformer.decoder.backward(grad)
        grad_source = self.transformer.encoder.backward(grad_memory)
        self.embed_backward(
            (self.source, self.dropout, grad_source),
            (self.target, self.target_dropout, grad_target),
        )
        self.match_types()


class LanguageModel(Tokens):
    """A Transformer that reads and writes one text: tokens (N, T) -> logits (N, T, V) of the next.

    Without a source there is no cross-attention, so its layers are called those of an encoder, as
    in PyTorch; with the causal mask they are a decoder's (Radford et al., 2018: GPT). With any of
    rotary positions, SwiGLU, RMSNorm (`norm`), fewer heads of keys and values than of queries
    (`kv_heads`), no biases or norms of queries and keys (`qk_norm`), layers are `ModernLayer`s.
    Without arguments, the twin's larger network for tiny-shakespeare.
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
        super().__init__(vocab_size, embed_dim, num_heads, dropout, positions, max_length)
        sizes = (embed_dim, num_heads, feedforward_dim, dropout, activation, norm_first)
        rotary, self.kv_heads = positions == "rotary", kv_heads or num_heads
        original = norm == "layer" and self.kv_heads == num_heads and bias and not qk_norm
        if original and not rotary and activation != "swiglu":
            self.encoder = Encoder(EncoderLayer(*sizes), num_layers, embed_dim)
        else:
            layer = ModernLayer(*sizes, rotary, max_length, norm, self.kv_heads, bias, qk_norm)
            self.encoder = ModernEncoder(layer, num_layers, embed_dim, norm, bias)
        start_matrices(self.encoder)

    def forward(self, tokens: Tensor) -> Tensor:
        self.tokens = tokens
        x = self.embed(tokens, self.dropout)
        x = self.encoder.forward(x, causal_mask(tokens.shape[1], like=x))
        return self.embedding.logits(x)

    def backward(self, grad_logits: Tensor) -> None:  # (N, T, V) ->
        grad = self.encoder.backward(self.embedding.logits_backward(grad_logits))
        self.embed_backward((self.tokens, self.dropout, grad))
        self.match_types()
