"""Losses: `forward(prediction, target)` gives a number, `backward()` its gradient."""

import torch
from torch import Tensor


class CrossEntropy:
    """Softmax cross-entropy, the mean over the batch, in nats.

    L = −1/N Σₙ Σₖ qₙₖ log pₙₖ,  log p = z − logsumexp(z)  (stable: no exp of a large logit)
    q = (1 − s) · one_hot(label) + s/K with label smoothing s (Szegedy et al., 2016, Section 7)

    ∂L/∂z = (p − q) / N: softmax and logarithm, differentiated together, leave this.
    """

    def __init__(self, label_smoothing: float = 0.0):
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:  # (N, K), (N,) -> ()
        N, K = logits.shape
        self.log_probs = logits - logits.logsumexp(dim=1, keepdim=True)
        self.targets = torch.full_like(logits, self.label_smoothing / K)
        self.targets[torch.arange(N, device=labels.device), labels] += 1 - self.label_smoothing
        nats = self.targets * self.log_probs
        return -nats.masked_fill(self.targets == 0, 0).sum() / N  # log 0 counts where q is not 0

    def __call__(self, *inputs: Tensor) -> Tensor:
        return self.forward(*inputs)

    def backward(self) -> Tensor:  # -> (N, K)
        return (self.log_probs.exp() - self.targets) / len(self.targets)


class SequenceCrossEntropy:
    """CrossEntropy of every token of a window: the mean over all T·N of them, in nats.

    That is −1/(T N) Σ log p(x_{t+1} | x_t, x_{t-1}, …): the text's own probability, chain rule of
    probabilities, one token at a time.
    """

    def __init__(self, label_smoothing: float = 0.0):
        self.criterion = CrossEntropy(label_smoothing)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:  # (T, N, V), (T, N) -> ()
        self.shape = logits.shape
        return self.criterion.forward(logits.flatten(0, 1), labels.flatten())

    def __call__(self, *inputs: Tensor) -> Tensor:
        return self.forward(*inputs)

    def backward(self) -> Tensor:  # -> (T, N, V)
        return self.criterion.backward().view(self.shape)
