"""How far back a network's gradient reaches."""

import torch
from torch import Tensor

from RNN_Manual.model import LanguageModel
from RNN_Manual.utils.losses import SequenceCrossEntropy


def gradient_over_distance(model: LanguageModel, tokens: Tensor, labels: Tensor) -> Tensor:
    """‖∂L_T/∂x_{T−k}‖ for k = 0, 1, …, T − 1, where L_T is the loss of the last prediction alone
    and x a character's embedding: the mean over the streams, as a share of that of k = 0.

    tokens and labels (T, N) -> (T,). The model is in evaluation mode.
    """
    logits, criterion = model.forward(tokens), SequenceCrossEntropy()
    criterion.forward(logits[-1:], labels[-1:])
    grad_logits = torch.zeros_like(logits)
    grad_logits[-1] = criterion.backward()[0]
    grad = model.linear.backward(grad_logits.flatten(0, 1)).view(*tokens.shape, -1)
    grad_x, _ = model.recurrent.backward(model.dropout.backward(grad))  # (T, N, D)
    norms = grad_x.norm(dim=2).mean(1).flip(0)
    return norms / norms[0]


def streams(data, window: int, most: int = 64) -> tuple[Tensor, Tensor]:
    """The beginning of a Text as N <= `most` unconnected windows (T, N) of inputs and labels."""
    T = min(window, len(data))
    N = min(most, len(data) // T)
    return data.inputs[: N * T].view(N, T).T, data.labels[: N * T].view(N, T).T
