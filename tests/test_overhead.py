"""overhead.py of ResNet and ViT: that it counts what it says, and nothing else."""

import re
import time

import pytest

from common.data import Split
from ResNet import overhead
from ResNet.dataset.normalize import Normalize
from ResNet.utils.augmentation import Augmentation
from tests.running import assert_one_line, call, few_shapes, script, small

FLAGS = [*small("ResNet"), "--epochs", "2"]
PAUSE = 0.01  # seconds


@pytest.fixture(autouse=True)
def short_runs(monkeypatch):
    few_shapes(monkeypatch)
    monkeypatch.setattr("common.plots.draw_curves", lambda path, history: None)


def slow(function):
    def wait(*args, **kwargs):
        time.sleep(PAUSE)
        return function(*args, **kwargs)

    return wait


def test_seconds_of_each_part_are_its_own(monkeypatch):
    predict_all = script("ResNet").predict_all
    monkeypatch.setattr(Augmentation, "__call__", slow(Augmentation.__call__))
    monkeypatch.setattr(script("ResNet"), "predict_all", slow(predict_all))
    clock = overhead.measure(FLAGS)
    assert clock.steps == 8
    assert set(clock.seconds) == {"batches", "augmentation", "normalisation", "logging"}
    assert clock.seconds["augmentation"] >= 8 * PAUSE
    assert sum(clock.seconds.values()) < clock.total
    assert Augmentation.__call__.__name__ == "wait"  # what was timed is as it was before
    assert Normalize.__call__.__name__ == "__call__" and Split.batches.__name__ == "batches"


def test_evaluation_is_not_counted(monkeypatch):
    clock = overhead.Clock()
    inner = clock.time("normalisation")(lambda: time.sleep(PAUSE))
    for _ in clock.wrap_batches(lambda: iter("abc"))():
        inner()
    counted = clock.seconds["normalisation"]
    assert clock.steps == 3 and 3 * PAUSE <= counted < clock.total
    inner()
    assert clock.seconds["normalisation"] == counted


def test_shares_add_up_in_what_is_printed(capsys):
    result = call(capsys, overhead.main, *FLAGS)
    assert (result.code, result.err) == (0, "")
    assert re.search(r"^8 steps, \d+\.\d ms each", result.out, re.MULTILINE)
    shares = [float(share) for share in re.findall(r"(\d+\.\d\d)%$", result.out, re.MULTILINE)]
    *parts, together = shares[-5:]
    assert abs(sum(parts) - together) <= 0.03 and 0 < together < 100


def test_a_bad_flag_is_one_line(capsys):
    assert_one_line(call(capsys, overhead.main, "--epochs", "0"), "--epochs")
