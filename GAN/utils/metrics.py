"""How far two sets of features (n, D) and (m, D) are apart."""

import torch
from torch import Tensor

CHUNK = 1000  # rows of a distance matrix at a time: bounded memory


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (D,) and covariance (D, D), in double precision. Needs two rows."""
    features = features.double()
    return features.mean(0), features.T.cov()


def matrix_sqrt(matrix: Tensor) -> Tensor:
    """The symmetric square root of a symmetric, positive semi-definite (D, D): V √Λ Vᵀ.

    Eigenvalues that rounding made negative count as 0.
    """
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def frechet_distance(one: Tensor, other: Tensor) -> float:
    """‖μ₁ - μ₂‖² + tr(C₁ + C₂ - 2 (C₁C₂)^½) of the Gaussians with the features' moments: their
    squared 2-Wasserstein distance (Dowson & Landau, 1982; of features: Heusel et al., 2017,
    arXiv:1706.08500, equation 6).

    C₁C₂ = √C₁ (√C₁ C₂ √C₁) √C₁⁻¹ has the eigenvalues of the symmetric matrix in the middle, so the
    trace needs no square root of a matrix that is not symmetric.
    """
    (mean1, cov1), (mean2, cov2) = moments(one), moments(other)
    root = matrix_sqrt(cov1)
    middle = torch.linalg.eigvalsh(root @ cov2 @ root).clamp(min=0)
    distance = (mean1 - mean2).square().sum() + cov1.trace() + cov2.trace()
    return (distance - 2 * middle.sqrt().sum()).clamp(min=0).item()


def radii(features: Tensor, k: int) -> Tensor:
    """The distance from each row to its k-th nearest other row: (n, D) -> (n,)."""
    found = [
        torch.cdist(rows, features).topk(k + 1, largest=False).values  # the nearest: the row itself
        for rows in features.split(CHUNK)
    ]
    return torch.cat(found)[:, k]


def share_within(features: Tensor, centres: Tensor, radius: Tensor) -> float:
    """The share of rows (n, D) that lie in at least one ball around `centres` (m, D)."""
    inside = [(torch.cdist(rows, centres) <= radius).any(dim=1) for rows in features.split(CHUNK)]
    return torch.cat(inside).double().mean().item()


def precision_recall(real: Tensor, fake: Tensor, k: int = 3) -> tuple[float, float]:
    """Precision: the share of `fake` that lies in the balls that reach from each real one to its
    k-th nearest real neighbour. Recall: the same with the roles exchanged (Kynkäänniemi et al.,
    2019, arXiv:1904.06991, equations 1 and 2). Needs more than k rows of each.
    """
    precision = share_within(fake, real, radii(real, k))
    return precision, share_within(real, fake, radii(fake, k))
