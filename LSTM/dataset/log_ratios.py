"""How much likelier an n-gram is in texts of one class than in the others: what naive Bayes counts.

N texts, K classes, P known n-grams of n words, F ratios of each: K, or of two classes one.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .ragged import Ragged, places

FOLDS = 5  # parts of the training texts; each is counted without itself
LEAST = 3  # a known n-gram is in at least so many texts
ALPHA = 1.0  # what every count starts with
UNKNOWN = 1  # the number of words that are not in the vocabulary; padding is 0


class LogRatios(NamedTuple):
    """An n-gram's place among those of its length is its number; 0 stands for all unknown ones."""

    keys: list[Tensor]  # of each length: (P,) int64, sorted, the first one 0
    tables: list[Tensor]  # of each length: (FOLDS + 1, P, F); in a checkpoint (1, P, F)

    def state_dict(self) -> dict:
        """What texts outside of training need."""
        return {"keys": self.keys, "tables": [table[-1:] for table in self.tables]}

    def is_like(self, other: "LogRatios") -> bool:
        """Whether the n-grams are the same, and so are their ratios over all texts, to rounding."""
        one, two = (torch.cat([table[-1].flatten() for table in x.tables]) for x in (self, other))
        same = len(self.keys) == len(other.keys) and all(map(torch.equal, self.keys, other.keys))
        return same and torch.allclose(one, two, atol=1e-5)


def checked(state: dict, K: int) -> LogRatios:
    """The ratios of a checkpoint. Raises ValueError if they are malformed."""
    ratios = LogRatios(**state)
    if not ratios.keys or len(ratios.keys) != len(ratios.tables):
        raise ValueError("its n-grams have no ratios")
    for keys, table in zip(*ratios, strict=True):
        if not all(isinstance(part, Tensor) for part in (keys, table)):
            raise ValueError("its ratios of n-grams are no numbers")
        shape = keys.numel(), K if K > 2 else 1
        sorted_ones = keys.dtype == torch.int64 and keys.dim() == 1 and (keys.diff() > 0).all()
        if not sorted_ones or keys[:1].tolist() != [0] or table.shape[1:] != shape:
            raise ValueError("its n-grams are not sorted, or their ratios not one for each")
        if not len(table) or table.dtype != torch.float32 or not table.isfinite().all():
            raise ValueError("its ratios of n-grams are not finite")
    return ratios


def folds_of(labels: Tensor, first: Tensor) -> Tensor:
    """Which texts are counted together: (N,) -> (N,), 0 to FOLDS - 1.

    Neighbours of one class share a fold, and each fold has its share of every class. In IMDB,
    neighbours are often about one film. Copies share the fold of the `first` (N,) among them.
    """
    folds = torch.zeros_like(labels)
    for k in labels.unique():
        rows = (labels == k).nonzero().squeeze(1)
        folds[rows] = torch.arange(len(rows)) * FOLDS // len(rows)
    return folds[first]


def keys_of(words: Tensor, shorter: Tensor | None) -> Tensor:
    """The key of the n-gram that ends at each word: (…, T) -> (…, T).

    That is the word, plus 2³² times the number of the n-gram before it, which is one word shorter.
    `shorter` (…, T) has the numbers of these, each where it ends; it is None for single words. The
    key is 0 where a part is unknown. The parts of a known n-gram are in at least as many texts.
    """
    known = words > UNKNOWN
    if shorter is None:
        return words * known
    before = F.pad(shorter[..., :-1], (1, 0))
    return (before * 2**32 + words) * (known & (before > 0))


def numbers_of(key: Tensor, keys: Tensor) -> Tensor:
    """The places of n-grams among the known ones; 0 for the others."""
    place = torch.searchsorted(keys, key).clamp(max=len(keys) - 1)
    return place * (keys[place] == key)


def count_log_ratios(
    inputs: Ragged, labels: Tensor, folds: Tensor, K: int, longest: int
) -> LogRatios:
    """The ratios of all n-grams of up to `longest` words that enough of these texts have."""
    N = len(inputs)
    row, place = places(inputs.lengths + 1)  # of each word, and of the padding after each text
    words = torch.zeros_like(row)
    words[place < inputs.lengths[row]] = inputs.flat().long()
    found, shorter = LogRatios([], []), None
    for _ in range(longest):
        keys, number = keys_of(words, shorter).unique(return_inverse=True)
        once = (number * N + row).unique()  # in each text
        kept = (once // N).bincount() >= LEAST
        kept[0] = True
        rank = (kept.cumsum(0) - 1) * kept  # its number among those kept; 0 for the others
        shorter, number, text = rank[number], rank[once // N], once % N
        P = int(kept.sum())
        place = (folds[text] * P + number) * K + labels[text]
        counts = torch.bincount(place, minlength=FOLDS * P * K).view(FOLDS, P, K)
        counts[:, 0] = 0
        found.keys.append(keys[kept])
        found.tables.append(log_ratios(counts))
    return found


def log_ratios(counts: Tensor) -> Tensor:
    """In how many texts of each fold and class every n-gram is, (FOLDS, P, K) -> the ratios that
    each fold reads, and last, for texts outside of training, those of all folds: (FOLDS + 1, P, F).

    With c the texts of a class that have the n-gram, d those of the others, and Σ over the known
    n-grams of this length and one for the unknown (Wang & Manning, 2012, section 2.1):

        ρ = log (c + α) / Σ (c + α) - log (d + α) / Σ (d + α)

    A fold reads what the others counted. Otherwise the ratio would hold the label of the very text
    that reads it, but only in training. ρ is 0 where fewer than `LEAST` texts were counted.
    """
    total = counts.sum(0)
    counts = torch.cat([total - counts, total[None]])
    number = counts.sum(2, keepdim=True)
    c, d = counts + ALPHA, number - counts + ALPHA
    rho = (c / c.sum(1, keepdim=True)).log() - (d / d.sum(1, keepdim=True)).log()
    rho = rho.masked_fill(number < LEAST, 0)
    return rho[:, :, 1:] if counts.shape[2] == 2 else rho
