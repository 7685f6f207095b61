"""Losses: `forward(prediction, target)` gives a number, `backward()` its gradient."""

import torch
from torch import Tensor

from Transformer_Manual.dataset.batches import IGNORED


def count(labels: Tensor) -> int:
    """How many labels of the batch count."""
    return int((labels != IGNORED).sum())


class TokenCrossEntropy:
    """Softmax cross-entropy of every token, the mean over those that count, in nats.

    L = −1/n Σ (Σ Q log P),  log P = z − logsumexp(z), over the n places whose label is not IGNORED
    Q = (1 − λ) · one_hot(label) + λ/V with label smoothing λ (Szegedy et al., 2016, Section 7), so
    −Σ Q log P = logsumexp(z) − (1 − λ) z[label] − λ · mean(z):  no matrix of Q is needed

    ∂L/∂z = (P − Q) / n where the label counts, else 0

    Of a network with many tokens, logits are the largest tensor. So e^z stays from forward, and
    backward turns it into the gradient where it is: it can be called once for each forward.
    """

    def __init__(self, label_smoothing: float = 0.0):
        self.label_smoothing = label_smoothing
        self.exp, self.memory = None, torch.empty(0)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:  # (N, T, V), (N, T) -> ()
        self.shape, smoothing = logits.shape, self.label_smoothing
        logits, labels = logits.flatten(0, 1), labels.flatten()
        self.counted = (labels != IGNORED)[:, None]  # (N·T, 1)
        self.labels = labels.clamp(min=0)[:, None]
        largest = logits.amax(1, keepdim=True)
        self.exp = torch.sub(logits, largest, out=self.keep(logits)).exp_()
        self.sums = self.exp.sum(1, keepdim=True)
        nats = largest + self.sums.log() - (1 - smoothing) * logits.gather(1, self.labels)
        if smoothing:
            nats -= smoothing * logits.mean(1, keepdim=True)
        return nats[self.counted].mean()

    def __call__(self, *inputs: Tensor) -> Tensor:
        return self.forward(*inputs)

    def backward(self) -> Tensor:  # -> (N, T, V)
        if self.exp is None:
            raise RuntimeError("backward writes over what forward kept: call forward again first")
        share = self.counted / self.counted.sum().to(self.sums)  # 1/n or 0, of each place
        V, smoothing = self.shape[-1], self.label_smoothing
        grad, self.exp = self.exp.mul_(share / self.sums), None
        if smoothing:
            grad.sub_(share * (smoothing / V))
        grad.scatter_add_(1, self.labels, share * (smoothing - 1))
        return grad.view(self.shape)

    def keep(self, like: Tensor) -> Tensor:
        """Memory of this shape that stays from step to step: asking the system for fresh pages
        takes as long as the arithmetic on them."""
        memory = self.memory
        if (
            memory.numel() < like.numel()
            or (memory.dtype, memory.device) != (like.dtype, like.device)
            or memory.is_inference() != torch.is_inference_mode_enabled()
        ):
            memory = self.memory = torch.empty(like.numel(), dtype=like.dtype, device=like.device)
        return memory[: like.numel()].view(like.shape)
