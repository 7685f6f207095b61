"""Bags of n-grams and what is linear in them: what a text's words say when their order is gone."""

import numpy
import torch
from scipy import sparse
from scipy.optimize import minimize_scalar
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC
from torch import Tensor

from common.errors import UserError
from LSTM.dataset.texts import Corpus


class NGrams:
    """Which n-grams of up to `longest` words occur in each text, and how often: (N, V) sparse."""

    def __init__(self, longest: int, min_freq: int, corpus: Corpus):
        """Known are those that at least `min_freq` of these texts have."""
        self.vectorizer = CountVectorizer(
            tokenizer=str.split, token_pattern=None, lowercase=False, dtype=numpy.float32,
            ngram_range=(1, longest), min_df=min_freq,
        )  # fmt: skip
        try:
            self.vectorizer.fit(self.texts(corpus))
        except ValueError:  # scikit-learn's, for an empty vocabulary
            raise UserError(f"no n-gram is in {min_freq} texts: lower --min-freq") from None

    @staticmethod
    def texts(corpus: Corpus) -> list[str]:
        return [" ".join(corpus.text(row)) for row in range(len(corpus))]

    def __call__(self, corpus: Corpus) -> sparse.csr_matrix:
        return self.vectorizer.transform(self.texts(corpus))


class NGramLogistic:
    """Logistic regression on tf-idf: counts count logarithmically, n-grams that most texts have
    count little, and every text has length 1."""

    def __init__(self, C: float, seed: int):
        self.weighting = TfidfTransformer(sublinear_tf=True)
        self.regression = LogisticRegression(C=C, max_iter=1_000, random_state=seed)

    def fit(self, counts: sparse.csr_matrix, labels: Tensor) -> "NGramLogistic":
        self.regression.fit(self.weighting.fit_transform(counts), labels.numpy())
        return self

    def logits(self, counts: sparse.csr_matrix) -> Tensor:
        """(N, V) -> (N, K)"""
        return two_columns(self.regression.decision_function(self.weighting.transform(counts)))

    @property
    def parameters(self) -> int:
        return self.regression.coef_.size + self.regression.intercept_.size


class NBSVM:
    """NB-SVM (Wang & Manning, 2012, section 2.3): a support vector machine on the log-count ratios
    of naive Bayes.

    With m the n-grams that occur in a text (1 or 0), p = α + Σ m over the texts of a class and
    q = α + Σ m over all others:

        ρ = log(p / |p|₁) - log(q / |q|₁),   x = ρ ∘ m,   w ← (1 - β) w̄ + β w

    where w is the weight vector that the SVM learns from x, and w̄ the mean of |w|. Its bias b
    becomes β b. One such machine per class; of two classes, one for the second.
    """

    def __init__(self, C: float, seed: int, alpha: float = 1.0, beta: float = 0.25):
        self.C, self.seed, self.alpha, self.beta = C, seed, alpha, beta
        self.scale = 1.0

    def fit(self, counts: sparse.csr_matrix, labels: Tensor) -> "NBSVM":
        marks, labels = self.binary(counts), labels.numpy()
        K = labels.max() + 1
        machines = [self.fit_one(marks, labels == k) for k in (range(K) if K > 2 else [1])]
        self.weights = numpy.stack([weights for weights, _ in machines], axis=1)  # (V, K or 1)
        self.bias = numpy.array([bias for _, bias in machines])
        return self

    def fit_one(
        self, marks: sparse.csr_matrix, of_class: numpy.ndarray
    ) -> tuple[numpy.ndarray, float]:
        p = self.alpha + numpy.asarray(marks[of_class].sum(0)).ravel()
        q = self.alpha + numpy.asarray(marks[~of_class].sum(0)).ravel()
        rho = numpy.log(p / p.sum()) - numpy.log(q / q.sum())
        machine = LinearSVC(C=self.C, random_state=self.seed, max_iter=5_000)
        machine.fit(marks.multiply(rho).tocsr(), of_class)
        w = machine.coef_[0]
        w = (1 - self.beta) * numpy.abs(w).mean() + self.beta * w
        return rho * w, float(machine.intercept_[0]) * self.beta

    @staticmethod
    def binary(counts: sparse.csr_matrix) -> sparse.csr_matrix:
        return (counts > 0).astype(numpy.float32)

    def logits(self, counts: sparse.csr_matrix) -> Tensor:
        """(N, V) -> (N, K)"""
        return self.scale * two_columns(self.binary(counts) @ self.weights + self.bias)

    def calibrate(self, counts: sparse.csr_matrix, labels: Tensor) -> None:
        """A margin is no probability: find the factor with which its loss is the smallest. That
        changes no prediction."""
        self.scale = 1.0
        margins = self.logits(counts)

        def loss(log_scale: float) -> float:
            return torch.nn.functional.cross_entropy(numpy.exp(log_scale) * margins, labels).item()

        self.scale = float(numpy.exp(minimize_scalar(loss, bounds=(-6, 6), method="bounded").x))

    @property
    def parameters(self) -> int:
        return self.weights.size + self.bias.size


def two_columns(margins: numpy.ndarray) -> Tensor:
    """The margins of K classes (N, K), or of two classes (N,) or (N, 1) -> logits (N, K)."""
    margins = torch.from_numpy(numpy.asarray(margins)).double().reshape(len(margins), -1)
    return torch.cat([-margins / 2, margins / 2], 1) if margins.shape[1] == 1 else margins
