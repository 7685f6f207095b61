"""The numbers that runs report: counts and sums over examples, divided once at the end; sizes."""

import math

import torch
from torch import Tensor

from common import distributed


class RunningMean:
    """The mean over all examples seen, so that a short last batch weighs what it should. The sum
    stays on the values' device: adding costs no synchronisation with a GPU."""

    def __init__(self, total: Tensor | float = 0.0, count: int = 0):
        self.total, self.count = total, count

    def add(self, mean: Tensor | float, count: int) -> None:
        """Add `count` examples whose mean is `mean`."""
        if count:  # or their mean is NaN
            self.total = self.total + mean * count
            self.count += count

    def gather(self) -> "RunningMean":
        """Put together what several processes have seen (torchrun)."""
        if distributed.is_distributed():
            total = torch.as_tensor(self.total)
            both = torch.stack([total, torch.full_like(total, self.count)])
            self.total, self.count = distributed.total(both).tolist()
        return self

    @property
    def value(self) -> float:
        """The mean so far; NaN before the first example."""
        return float(self.total) / self.count if self.count else math.nan


def correct(logits: Tensor, labels: Tensor, k: int = 1) -> Tensor:
    """Which examples have their label among the `k` largest logits: (N, K), (N,) -> (N,) bool."""
    return (logits.topk(min(k, logits.shape[1])).indices == labels[:, None]).any(dim=1)


def metrics_of(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Mean loss (nats per example, never smoothed) and accuracy: (N, K), (N,). Of several
    processes, each brings its share of the examples; the result is that of all."""
    nats = logits.logsumexp(1) - logits.gather(1, labels[:, None]).squeeze(1)
    loss, accuracy = (RunningMean(logits.new_zeros(())) for _ in range(2))  # a share may be empty
    loss.add(nats.mean(), len(labels))
    accuracy.add(correct(logits, labels).float().mean(), len(labels))
    return {"loss": loss.gather().value, "accuracy": accuracy.gather().value}


def confusion_matrix(predictions: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Counts by (true class, predicted class): two (N,) tensors -> (K, K) int64."""
    pairs = labels * num_classes + predictions
    return torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes)


def perplexity(nats_per_token: float) -> float:
    """exp(loss): among how many equally likely tokens the model hesitates."""
    return math.inf if nats_per_token > 700 else math.exp(nats_per_token)


def bits_per_character(nats_per_character: float) -> float:
    """The loss in bits instead of nats: loss / ln 2."""
    return nats_per_character / math.log(2)


def parameter_count(model) -> int:
    """How many numbers are learned, in a hand-written model or an nn.Module."""
    parameters = model.parameters()
    tensors = parameters.values() if isinstance(parameters, dict) else parameters
    return sum(tensor.numel() for tensor in tensors)
