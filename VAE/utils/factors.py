"""Does every factor of the images have a latent number of its own? (Chen et al., 2018)"""

import torch
from torch import Tensor

BINS = 20


def binned(values: Tensor, bins: int = BINS) -> Tensor:
    """Values (N,) as the number of the bin that each is in; whole numbers stay what they are."""
    if not values.is_floating_point():
        return values - values.min()
    low, high = values.min(), values.max()
    return ((values - low) / (high - low).clamp(min=1e-12) * bins).long().clamp(max=bins - 1)


def entropy(counts: Tensor) -> Tensor:
    """−Σ p log p in nats, of counts in any shape."""
    p = counts.double() / counts.sum()
    return -torch.xlogy(p, p).sum()


def mutual_information(a: Tensor, b: Tensor) -> float:
    """I(a; b) = H(a) + H(b) − H(a, b) of two rows of bin numbers (N,), in nats."""
    size = int(b.max()) + 1
    joint = torch.bincount(a * size + b, minlength=(int(a.max()) + 1) * size).view(-1, size)
    return (entropy(joint.sum(1)) + entropy(joint.sum(0)) - entropy(joint)).item()


def information(mu: Tensor, factors: dict[str, Tensor]) -> Tensor:
    """I(latent number; factor) / H(factor), in [0, 1]: codes (N, J), F factors (N,) -> (J, F)"""
    units = [binned(unit) for unit in mu.cpu().T]
    rows = []
    for values in factors.values():
        bins = binned(values)
        own = entropy(torch.bincount(bins)).item()
        rows.append([mutual_information(unit, bins) / max(own, 1e-12) for unit in units])
    return torch.tensor(rows).T


def mutual_information_gap(shares: Tensor) -> float:
    """How much more the best latent number knows of a factor than the second best, in the mean over
    the factors: (J, F) -> 0 (all know the same) to 1 (each factor is in one number alone)."""
    best = shares.sort(0, descending=True).values
    second = best[1] if len(best) > 1 else torch.zeros_like(best[0])
    return (best[0] - second).mean().item()
