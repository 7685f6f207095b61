"""A recurrent language model by hand: it reads a text token by token and predicts the next.

T is time, N the batch (streams of text), V the vocabulary, D the width of the embedding, H the
hidden units.
"""

from torch import Tensor

from RNN_Manual.utils.layers import GRU, LSTM, RNN, Dropout, Embedding, Layer, Linear

CELLS = {"rnn": RNN, "gru": GRU, "lstm": LSTM}


class LanguageModel(Layer):
    """Embedding -> recurrent layers of `cell` -> Dropout -> Linear, at every step.

    Without arguments, the network of the README's result with an LSTM on tiny-shakespeare.
    """

    not_hidden = ("embedding.", "linear.")  # Muon leaves them to AdamW

    def __init__(
        self,
        vocab_size: int = 65,
        embed_dim: int = 64,
        hidden_size: int = 512,
        num_layers: int = 2,
        cell: str = "lstm",
        dropout: float = 0.5,
        weight_dropout: float = 0.0,
    ):
        self.embedding = Embedding(vocab_size, embed_dim)
        self.recurrent = CELLS[cell](embed_dim, hidden_size, num_layers, dropout, weight_dropout)
        self.dropout = Dropout(dropout)
        self.linear = Linear(hidden_size, vocab_size)

    def forward(self, tokens: Tensor, state=None) -> Tensor:
        """tokens (T, N) -> logits (T, N, V) of the token after each.

        `state` is what an earlier window left in `self.state`, (num_layers, N, H) or for the LSTM
        two of them; None starts from zeros.
        """
        T, N = tokens.shape
        x = self.embedding.forward(tokens)  # (T, N, D)
        x, self.state = self.recurrent.forward(x, state)  # (T, N, H)
        x = self.dropout.forward(x)
        return self.linear.forward(x.flatten(0, 1)).view(T, N, -1).to(x.dtype)

    def backward(self, grad_logits: Tensor) -> None:  # (T, N, V) ->
        T, N, _ = grad_logits.shape
        grad = self.linear.backward(grad_logits.flatten(0, 1)).view(T, N, -1)
        grad = self.dropout.backward(grad)
        grad, _ = self.recurrent.backward(grad)  # what came before this window is not asked
        self.embedding.backward(grad)
        self.match_types()

    def match_types(self) -> None:
        """Give every gradient the type of its parameter: under autocast, products have fewer bits,
        and so has what is made of them."""
        for _, layer in self.modules():
            for name in layer.parameter_names:
                gradient = getattr(layer, "grad_" + name)
                setattr(layer, "grad_" + name, gradient.to(getattr(layer, name)))
