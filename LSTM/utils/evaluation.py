"""What a trained network says: of a whole split, of one text, and because of which words."""

import torch
from torch import Tensor, nn

from common.device import autocast
from LSTM.dataset.texts import MOST_TOKENS, Texts
from LSTM.model import PAD, UNKNOWN

MOST_PARTS = 200  # of a text that are left out in turn: of longer ones, several words at a time


@torch.no_grad()
def predict_all(model: nn.Module, data: Texts, precision: str = "float32") -> tuple[Tensor, Tensor]:
    """Logits (N, K) in float32 and labels (N,), in the split's order; of several processes, a part.

    Texts of similar length are computed together. That changes no logit: padding reaches none.
    """
    model.eval()
    none = data.labels[:0]
    rows, logits = [none], [none.new_empty(0, len(data.classes)).float()]  # a share may be empty
    for batch in data.sorted_batches():
        tokens, lengths = data.inputs[batch]
        with autocast(tokens.device, precision):
            logits.append(model(tokens, lengths).float())
        rows.append(batch)
    rows = torch.cat(rows)
    order = rows.argsort()
    return torch.cat(logits)[order], data.labels[rows[order]]


def log_odds(logits: Tensor, label: int) -> Tensor:
    """log p / (1 - p) of a class: (N, K) -> (N,)."""
    log_probs = logits.log_softmax(1)
    others = [k for k in range(logits.shape[1]) if k != label]
    return log_probs[:, label] - log_probs[:, others].logsumexp(1)


@torch.no_grad()
def word_weights(model: nn.Module, tokens: Tensor, label: int) -> Tensor:
    """What each word of a text brings to a class: (T,) -> (T,), in nats of its log odds.

    The weight of a word is how much the log odds fall when it is replaced by <unk> (leave one out:
    Zeiler & Fergus, 2013, section 4; Li et al., 2016, arXiv:1612.08220). In a text of more than
    MOST_PARTS words, neighbours are replaced together and share a weight.
    """
    model.eval()
    T = len(tokens)
    if not T:
        return torch.zeros(0)
    part = torch.arange(T, device=tokens.device) * min(T, MOST_PARTS) // T  # (T,)
    versions = tokens.repeat(int(part[-1]) + 2, 1)  # the whole text first
    left_out = part == torch.arange(len(versions) - 1, device=tokens.device)[:, None]
    versions[1:] = versions[1:].masked_fill(left_out & (tokens != PAD), UNKNOWN)
    lengths = torch.full((len(versions),), T, device=tokens.device)
    rows = max(1, min(50, MOST_TOKENS // T))
    logits = [model(*both) for both in zip(versions.split(rows), lengths.split(rows), strict=True)]
    odds = log_odds(torch.cat(logits).float(), label)
    return (odds[0] - odds[1:])[part].cpu()
