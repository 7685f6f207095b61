"""Classes where nobody named any: clusters of the training data, for the players to know."""

import warnings
from copy import copy

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor, from_numpy
from torch.nn import functional as F

from common.data import Split
from common.errors import UserError

SIDE = 14  # of the smaller images that are compared, where a shift by a pixel counts for less


def as_points(inputs: Tensor) -> Tensor:
    """Images (N, C, H, W), of at most 14 × 14 pixels, or points (N, D), as rows: (N, D'), on the
    CPU."""
    small = inputs.cpu().float()
    if small.dim() == 4:
        small = F.adaptive_avg_pool2d(small, min(SIDE, small.shape[-1]))
    return small.flatten(1)


def k_means(points: Tensor, K: int) -> Tensor:
    """The cluster, 0 to K - 1, of each row of (N, D): (N,). With one version of scikit-learn, on
    one kind of processor, the same clusters every time.

    K-means++ starts (Arthur & Vassilvitskii, 2007), then Lloyd's steps. Fewer than K clusters have
    rows if fewer than K rows differ.
    """
    from sklearn.cluster import KMeans  # slow to import
    from sklearn.exceptions import ConvergenceWarning

    with threadpool_limits(1), warnings.catch_warnings():  # several threads add up in any order
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = KMeans(K, n_init=1, random_state=0).fit(points.numpy())
    return from_numpy(found.labels_).long()


def with_clusters(train: Split, K: int) -> Split:
    """The split with K clusters as its classes (Liu et al., 2020, arXiv:2006.10728); as it is for
    0. No label is read.

    Raises UserError for more clusters than different examples.
    """
    if not K:
        return train
    if len(train) < K:
        raise UserError(f"--clusters {K} is more than the {len(train)} examples")
    print(f"finding {K} clusters", flush=True)
    points = torch.cat([as_points(inputs) for inputs, _ in train.in_order()])
    labels = k_means(points, K)
    found = len(labels.unique())
    if found < K:
        raise UserError(f"--clusters {K}: only {found} examples differ")
    clustered = copy(train)
    clustered.labels, clustered.classes = labels.to(train.labels.device), [str(k) for k in range(K)]
    return clustered
