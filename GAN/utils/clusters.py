"""Classes where nobody named any: clusters of the training data, for the players to know."""

from argparse import Namespace

from threadpoolctl import threadpool_limits
from torch import Tensor, from_numpy
from torch.nn import functional as F

from common.data import Split
from common.errors import UserError

SIDE = 14  # of the smaller images that are compared, where a shift by a pixel counts for less


def as_points(inputs: Tensor) -> Tensor:
    """Images (N, C, H, W), made smaller, or points (N, D), as rows: (N, D') on the CPU."""
    small = inputs.cpu().float()
    if small.dim() == 4:
        small = F.adaptive_avg_pool2d(small, min(SIDE, small.shape[-1]))
    return small.flatten(1)


def k_means(points: Tensor, K: int) -> Tensor:
    """The cluster, 0 to K - 1, of each row of (N, D): (N,). The same clusters every time.

    By scikit-learn: K-means++ starts (Arthur & Vassilvitskii, 2007), then Lloyd's steps.
    """
    from sklearn.cluster import KMeans  # slow to import

    with threadpool_limits(1):  # several threads add up in any order
        found = KMeans(K, n_init=1, random_state=0).fit(points.numpy())
    return from_numpy(found.labels_).long()


def with_clusters(train: Split, args: Namespace) -> Split:
    """The split with its clusters as classes, where `args.clusters` asks for some (Liu et al.,
    2020, arXiv:2006.10728). No label is read.

    Raises UserError for a model that learns the named classes, and for more clusters than examples.
    """
    if not args.clusters:
        return train
    if args.model == "cgan":
        raise UserError("--clusters is of a GAN without classes; cgan has those of the labels")
    if args.clusters > len(train):
        raise UserError(f"--clusters {args.clusters} is more than the {len(train)} examples")
    labels = k_means(as_points(train.inputs), args.clusters).to(train.labels.device)
    return Split(train.inputs, labels, [str(k) for k in range(args.clusters)], train.checksums)
