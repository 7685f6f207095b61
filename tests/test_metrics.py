"""common/metrics.py against scikit-learn, closed forms and hand counts."""

import math

import pytest
import sklearn.metrics
import torch
from torch import nn

from common import metrics
from common.metrics import RunningMean

SIZES = [(1, 2), (7, 3), (200, 10)]  # (N, K)


def random_case(N, K):
    """Logits (N, K) without ties, and labels (N,)."""
    generator = torch.Generator().manual_seed(N)
    logits = torch.randn(N, K, generator=generator, dtype=torch.float64)
    return logits, torch.randint(K, (N,), generator=generator)


@pytest.mark.smoke
@pytest.mark.parametrize("N, K", SIZES)
def test_accuracy_is_scikit_learns(N, K):
    logits, labels = random_case(N, K)
    expected = sklearn.metrics.accuracy_score(labels, logits.argmax(1))
    assert metrics.correct(logits, labels).float().mean().item() == pytest.approx(expected)


def test_a_process_without_examples_sums_on_its_own_device(monkeypatch):
    """NCCL cannot add up what lies on the CPU."""
    places = []

    def total(values):
        places.append(values.device.type)
        return torch.tensor([3.0, 2.0])

    monkeypatch.setattr(metrics.distributed, "is_distributed", lambda: True)
    monkeypatch.setattr(metrics.distributed, "total", total)
    nothing = torch.empty(0, 3, device="meta"), torch.empty(0, dtype=torch.long, device="meta")
    assert metrics.metrics_of(*nothing) == {"loss": 1.5, "accuracy": 1.5}
    assert places == ["meta", "meta"]


@pytest.mark.parametrize("k", [1, 2, 5, 9])
def test_top_k_accuracy_is_scikit_learns(k):
    logits, labels = random_case(200, 10)
    expected = sklearn.metrics.top_k_accuracy_score(labels, logits, k=k, labels=range(10))
    assert metrics.correct(logits, labels, k).float().mean() == pytest.approx(expected)
    assert metrics.correct(logits, labels, 10).all(), "all classes always hold the label"


def test_correct_says_which_examples_are():
    logits = torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    labels = torch.tensor([0, 1, 2])
    assert metrics.correct(logits, labels).tolist() == [True, False, False]
    assert metrics.correct(logits, labels, k=2).tolist() == [True, True, False]


@pytest.mark.parametrize("N, K", SIZES)
def test_confusion_matrix_is_scikit_learns(N, K):
    logits, labels = random_case(N, K)
    counts = metrics.confusion_matrix(logits.argmax(1), labels, K)
    expected = sklearn.metrics.confusion_matrix(labels, logits.argmax(1), labels=range(K))
    assert counts.dtype == torch.int64
    assert counts.tolist() == expected.tolist()


def test_confusion_matrix_keeps_classes_that_never_occur():
    counts = metrics.confusion_matrix(torch.tensor([1, 1]), torch.tensor([0, 1]), 4)
    assert counts.shape == (4, 4)
    assert counts.nonzero().tolist() == [[0, 1], [1, 1]]


@pytest.mark.smoke
@pytest.mark.parametrize("batch_size", [1, 3, 4, 10, 11])
def test_running_mean_weighs_a_short_last_batch_by_its_examples(batch_size):
    values = torch.randn(10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mean = RunningMean()
    for batch in values.split(batch_size):
        mean.add(batch.mean(), len(batch))
    assert mean.count == 10
    assert mean.value == pytest.approx(values.mean().item(), rel=1e-12)


def test_running_mean_takes_plain_numbers_and_returns_one():
    mean = RunningMean()
    mean.add(1.0, 3)
    mean.add(torch.tensor(5.0), 1)
    assert isinstance(mean.value, float)
    assert mean.value == 2


def test_running_mean_is_nan_before_the_first_example():
    assert math.isnan(RunningMean().value)


def test_running_mean_goes_on_from_a_total_and_a_count():
    whole, first = RunningMean(), RunningMean()
    for mean in (whole, first):
        mean.add(0.3, 5)
    second = RunningMean(float(first.total), first.count)
    for mean in (whole, second):
        mean.add(0.7, 2)
    assert second.value == whole.value


def test_running_mean_keeps_a_nan():
    mean = RunningMean()
    mean.add(torch.tensor(math.nan), 4)
    mean.add(torch.tensor(1.0), 4)
    assert math.isnan(mean.value)


@pytest.mark.parametrize("V", [1, 2, 27, 50_000])
def test_uniform_guess_among_v_has_perplexity_v_and_log2_v_bits(V):
    assert metrics.perplexity(math.log(V)) == pytest.approx(V)
    assert metrics.bits_per_character(math.log(V)) == pytest.approx(math.log2(V))


def test_perplexity_of_a_diverged_model_is_infinite_or_nan():
    assert metrics.perplexity(1e4) == metrics.perplexity(math.inf) == math.inf
    assert math.isnan(metrics.perplexity(math.nan))


@pytest.mark.smoke
def test_parameter_count_of_a_module_leaves_buffers_out():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2, bias=False))
    assert metrics.parameter_count(model) == (3 * 4 + 4) + (4 + 4) + 4 * 2


def test_parameter_count_of_a_module_counts_tied_weights_once():
    model = nn.ModuleList([nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)])
    model[1].weight = model[0].weight
    assert metrics.parameter_count(model) == 9


def test_parameter_count_of_a_hand_written_model():
    class Model:
        def parameters(self):
            return {"layer.weight": torch.zeros(3, 4), "layer.bias": torch.zeros(4)}

    assert metrics.parameter_count(Model()) == 3 * 4 + 4
