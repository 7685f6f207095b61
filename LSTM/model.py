"""A recurrent network that reads a text in both directions and says what class it is of.

Shapes: N texts, T words of the longest, D embed_dim, H hidden_size, K classes, V vocabulary.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from LSTM.dataset.log_ratios import UNKNOWN, LogRatios, keys_of, numbers_of

CELLS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
POOLINGS = ("last", "mean", "max", "attention", "concat")
PAD = 0  # the number of padding
RATIO_SCALE = 0.5  # most log ratios lie between -2 and 2


def reverse(x: Tensor, lengths: Tensor) -> Tensor:
    """Each sequence backwards, its padding where it was: (N, T, D), (N,) -> (N, T, D)."""
    t = torch.arange(x.shape[1], device=x.device)
    source = torch.where(t < lengths[:, None], lengths[:, None] - 1 - t, t)  # (N, T)
    return x.gather(1, source[:, :, None].expand_as(x))


class RecurrentLayer(nn.Module):
    """One layer of cells: (N, T, D) -> (N, T, H), or (N, T, 2H) when it reads backwards, too.

    A cell knows nothing but what came before: forwards, padding at the end cannot reach a word.
    Backwards it would come first, so each text is turned around by itself (Graves & Schmidhuber,
    2005). The same as `pack_padded_sequence`, but whole batches run through the fast kernels.

    On a CPU the cells compute in float32 under autocast, too: oneDNN's have bfloat16 with AVX-512
    alone, and float16 not at all.
    """

    def __init__(self, cell: str, input_size: int, hidden_size: int, bidirectional: bool):
        super().__init__()
        self.forwards = CELLS[cell](input_size, hidden_size, batch_first=True)
        self.backwards = None
        if bidirectional:
            self.backwards = CELLS[cell](input_size, hidden_size, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            y, _ = self.forwards(x)
            if self.backwards is None:
                return y
            z, _ = self.backwards(reverse(x, lengths))
        return torch.cat([y, reverse(z, lengths)], dim=2)


class Pooling(nn.Module):
    """The states at all words -> one vector: (N, T, D), mask (N, T), lengths (N,) -> (N, size).

    last       where a reader ends: the last word forwards, the first one backwards
    mean, max  over the words, feature by feature
    attention  Σₜ wₜ yₜ with w = softmax over the words of vᵀ tanh(W yₜ + b) (Yang et al., 2016)
    concat     last, mean and max, side by side (Howard & Ruder, 2018, arXiv:1801.06146): 3 D
    """

    def __init__(self, kind: str, dim: int, bidirectional: bool):
        super().__init__()
        self.kind, self.bidirectional, self.size = kind, bidirectional, dim
        if kind == "concat":
            kinds = ("last", "mean", "max")
            self.parts = nn.ModuleList(Pooling(part, dim, bidirectional) for part in kinds)
            self.size = 3 * dim
        if kind == "attention":
            self.hidden, self.score = nn.Linear(dim, dim), nn.Linear(dim, 1, bias=False)

    def forward(self, y: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
        if self.kind == "concat":
            return torch.cat([pool(y, mask, lengths) for pool in self.parts], dim=1)
        if self.kind == "last":
            last = y[torch.arange(len(y), device=y.device), lengths - 1]  # (N, D)
            if not self.bidirectional:
                return last
            return torch.cat([last.chunk(2, 1)[0], y[:, 0].chunk(2, 1)[1]], dim=1)
        if self.kind == "mean":
            return (y * mask[:, :, None]).sum(1) / lengths[:, None]
        if self.kind == "max":
            return y.masked_fill(~mask[:, :, None], -torch.inf).amax(1)
        scores = self.score(torch.tanh(self.hidden(y))).squeeze(2)  # (N, T)
        weights = scores.masked_fill(~mask, -torch.inf).softmax(1)
        return (y * weights[:, :, None]).sum(1)


class Evidence(nn.Module):
    """What the n-grams that end at each word say of the classes: (N, T) -> (N, T, n F), for n-grams
    of 1 to n words and F ratios each (see dataset/log_ratios.py).

    With `folds` (N,), each text reads what was counted outside of its own fold. Without, it reads
    what was counted in all texts.
    """

    def __init__(self, ratios: LogRatios):
        super().__init__()
        self.keys, self.tables = ratios  # no buffers: a moving average would average the keys
        self.size = sum(table.shape[2] for table in self.tables)

    def _apply(self, change, *args):
        """What .to(device) does with every parameter."""
        self.keys, self.tables = (
            [change(tensor) for tensor in part] for part in (self.keys, self.tables)
        )
        return super()._apply(change, *args)

    def forward(self, tokens: Tensor, folds: Tensor | None = None) -> Tensor:
        words, numbers, found = tokens.long(), None, []
        fold = -1 if folds is None else folds[:, None]
        for keys, table in zip(self.keys, self.tables, strict=True):
            numbers = numbers_of(keys_of(words, numbers), keys)  # (N, T)
            found.append(table[fold, numbers])
        return RATIO_SCALE * torch.cat(found, 2)


class RecurrentClassifier(nn.Module):
    """tokens (N, T), lengths (N,) -> logits (N, K).

    word_dropout       share of the words that are replaced by <unk> (as in Bowman et al., 2015),
                       except for the ratios
    embedding_dropout  share of the vocabulary that is left out of a batch, every time it occurs
                       (Gal & Ghahramani, 2015, section 4.2)
    dropout            of the embeddings' features, between layers, and before the last layer
    ratios             of n-grams: the cells read them beside the words' vectors, and the last layer
                       their sum over the words, divided by √length
    """

    def __init__(
        self, vocabulary: int = 30_000, num_classes: int = 2, cell: str = "lstm",
        embed_dim: int = 128, hidden_size: int = 128, num_layers: int = 1,
        bidirectional: bool = True, pooling: str = "max", dropout: float = 0.5,
        word_dropout: float = 0.0, embedding_dropout: float = 0.0,
        ratios: LogRatios | None = None,
    ):  # fmt: skip
        super().__init__()
        self.word_dropout, self.embedding_dropout = word_dropout, embedding_dropout
        self.embedding = nn.Embedding(vocabulary, embed_dim, padding_idx=PAD)
        nn.init.normal_(self.embedding.weight, std=0.03)  # what is learned soon outweighs it
        nn.init.zeros_(self.embedding.weight[PAD])
        self.evidence = Evidence(ratios) if ratios is not None else None
        more = self.evidence.size if self.evidence is not None else 0
        dim = hidden_size * (1 + bidirectional)
        sizes = [embed_dim + more] + [dim] * (num_layers - 1)
        self.layers = nn.ModuleList(
            RecurrentLayer(cell, size, hidden_size, bidirectional) for size in sizes
        )
        self.dropout = nn.Dropout(dropout)
        self.pooling = Pooling(pooling, dim, bidirectional)
        self.output = nn.Linear(self.pooling.size + more, num_classes)
        self.not_decayed = {"embedding.weight"}  # rare words would fade away between two gradients

    def embed(self, tokens: Tensor) -> Tensor:
        """(N, T) -> (N, T, D), with what training leaves out at random."""
        if not self.training:
            return self.embedding(tokens)
        if self.word_dropout:
            dropped = torch.rand(tokens.shape, device=tokens.device) < self.word_dropout
            tokens = tokens.masked_fill(dropped & (tokens != PAD), UNKNOWN)
        x = self.embedding(tokens)
        if self.embedding_dropout:
            kept = F.dropout(x.new_ones(self.embedding.num_embeddings), self.embedding_dropout)
            x = x * kept[tokens][:, :, None]
        return x

    def forward(
        self, tokens: Tensor, lengths: Tensor, shift: Tensor | None = None,
        folds: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """`shift` (N, T, D) is added to the words' vectors: see utils/adversarial.py. `folds` (N,)
        are those of training texts: see `Evidence`."""
        T = tokens.shape[1]
        lengths = lengths.clamp(min=1)  # an empty text is read as one word of padding, all zeros
        mask = torch.arange(T, device=tokens.device) < lengths[:, None]  # (N, T)
        x = self.embed(tokens)
        if shift is not None:
            x = x + shift
        x = self.dropout(x)
        if self.evidence is not None:
            evidence = self.evidence(tokens, folds)
            x = torch.cat([x, evidence], dim=2)
        x = self.layers[0](x, lengths)
        for layer in self.layers[1:]:
            x = layer(self.dropout(x), lengths)
        pooled = self.dropout(self.pooling(x, mask, lengths))
        if self.evidence is not None:
            pooled = torch.cat([pooled, evidence.sum(1) / lengths[:, None].sqrt()], dim=1)
        return self.output(pooled)
