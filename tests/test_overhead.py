"""overhead.py of ResNet and ViT: that it counts what it says, and nothing else."""

import re
import time

import pytest
from PIL import Image

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


@pytest.mark.parametrize("folder", ["ResNet", "ViT"])
def test_images_that_are_read_from_the_disk_are_counted_as_well(folder, tmp_path, monkeypatch):
    for n, name in enumerate(["train/a", "train/b", "test/a", "test/b"]):
        (tmp_path / name).mkdir(parents=True)
        for number in range(8):
            image = Image.new("RGB", (16, 16), (30 * number, 60 * n, 90))
            image.save(tmp_path / name / f"{number}.png")
    monkeypatch.setattr(script(folder, "dataset.image_folder"), "IN_MEMORY_BYTES", 0)
    flags = ["--dataset", "folder", "--data-dir", tmp_path, "--batch-size", 4, "--epochs", 1]
    flags += ["--model", {"ResNet": "resnet9-small", "ViT": "nano-conv"}[folder], "--warmup", 0]
    clock = script(folder, "overhead").measure(flags)
    assert clock.steps == len(range(0, 14 - 3, 4)) and clock.seconds["batches"] > 0


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
