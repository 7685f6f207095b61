"""What the attention looks at: the weights of every head, for pictures."""

from typing import NamedTuple

from torch import Tensor

from Transformer_Manual.dataset.characters import Vocabulary
from Transformer_Manual.dataset.tokenizers import BEGIN, END, Tokenizer
from Transformer_Manual.model import LanguageModel, Transformer


class Looks(NamedTuple):
    """A picture of attention: weights (h, T, S) of each layer, what looks, what is looked at."""

    title: str
    layers: list[Tensor]
    rows: list[str]
    columns: list[str]


def attention_weights(model: Transformer | LanguageModel, *inputs: Tensor) -> dict:
    """For each kind of attention its weights, a tensor (N, h, T, S) a layer: the softmax's rows.

    Kinds are "encoder" and "decoder", each looking at itself, and "cross", the decoder at the
    encoder; a language model has the first. The model is in evaluation mode.
    """
    model.forward(*inputs)  # leaves them in the layers
    if isinstance(model, LanguageModel):
        return {"encoder": [layer.self_attn.weights for layer in model.encoder.layers]}
    encoder, decoder = model.transformer.encoder.layers, model.transformer.decoder.layers
    return {
        "encoder": [layer.self_attn.weights for layer in encoder],
        "decoder": [layer.self_attn.weights for layer in decoder],
        "cross": [layer.multihead_attn.weights for layer in decoder],
    }


def over_translation(
    model: Transformer, tokenizer: Tokenizer, source: Tensor, translation: list[int]
) -> dict[str, Looks]:
    """Where a Transformer's heads look while it reads `source` (S,) and writes `translation`."""
    read = [BEGIN, *translation]
    weights = attention_weights(model, source[None], source.new_tensor([read]))
    sources, targets, written = (
        tokenizer.pieces(tokens) for tokens in (source.tolist(), read, [*translation, END])
    )
    parts = {
        "encoder": ("where the encoder looks", sources, sources),
        "decoder": ("where the decoder looks in what it has written", targets, targets),
        "cross": ("where the decoder looks to write each token", written, sources),
    }
    return {
        f"attention_{kind}": Looks(title, [layer[0] for layer in weights[kind]], rows, columns)
        for kind, (title, rows, columns) in parts.items()
    }


def over_text(model: LanguageModel, vocabulary: Vocabulary, tokens: Tensor) -> dict[str, Looks]:
    """Where a language model's heads look in a text (T,)."""
    layers = [layer[0] for layer in attention_weights(model, tokens[None])["encoder"]]
    characters = [vocabulary.characters[token] for token in tokens.tolist()]
    return {"attention": Looks("where each character looks", layers, characters, characters)}
