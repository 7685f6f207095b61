"""CNN_Torch beside CNN_Manual: augmentation, memory layout, precision, and resuming with both."""

import importlib
import json

import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from CNN_Manual.utils import augment as by_hand
from CNN_Torch.model import CNN
from CNN_Torch.utils import augment
from common import checkpoint
from common.data import Split
from tests.running import assert_one_line, call, history, script, small, without_seconds

SHAPES = [(3, 2, 9, 9), (2, 1, 28, 28), (4, 1, 7, 12), (1, 3, 1, 2)]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.smoke
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("limits", [(1.5, 0.0, 0.0), (0.0, 40.0, 0.0), (2.5, 25.0, 0.3)])
def test_random_affine_is_that_of_the_twin(shape, limits):
    images, results = torch.randn(shape), []
    for module in (augment, by_hand):
        torch.manual_seed(1)
        results.append(module.random_affine(images, *limits, background=-0.4))
    torch.testing.assert_close(*results, rtol=0, atol=1e-4)
    assert not torch.equal(results[0], images)


@pytest.mark.parametrize("shape", SHAPES)
def test_random_flip_is_that_of_the_twin(shape):
    images, results = torch.randn(shape), []
    for module in (augment, by_hand):
        torch.manual_seed(1)
        results.append(module.random_flip(images))
    assert torch.equal(*results)


def test_channels_last_changes_the_layout_and_not_the_result():
    model, images = CNN(in_channels=3).double().eval(), torch.randn(4, 3, 28, 28).double()
    expected = model(images)
    model.to(memory_format=torch.channels_last)
    assert model.features[0].weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(model(images), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("folder", ["CNN_Torch", "CNN_Manual"])
def test_mirroring_does_not_change_predictions_when_evaluated_with_mirrored_images(folder):
    model, images = importlib.import_module(f"{folder}.model").CNN(), torch.randn(5, 1, 28, 28)
    predict = script(folder).predict
    splits = [Split(x, torch.zeros(5).long(), ["a"], {}) for x in (images, images.flip(3))]
    logits, of_mirrored = (predict(model, split, flip=True) for split in splits)
    torch.testing.assert_close(logits, of_mirrored)
    plain = [predict(model, split) for split in splits]
    torch.testing.assert_close(logits, (plain[0] + plain[1]) / 2)
    assert not torch.allclose(*plain)


@pytest.mark.parametrize("folder", ["CNN_Torch", "CNN_Manual"])
def test_moved_images_count_half_where_the_network_is_unsure(folder, monkeypatch):
    model, images = importlib.import_module(f"{folder}.model").CNN(), torch.randn(40, 1, 28, 28)
    predict, labels, classes = script(folder).predict, torch.zeros(40).long(), list("0123456789")
    padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
    views = images, padded[:, :, :28, :28], padded[:, :, 2:, 2:]
    plain, one, other = (predict(model, Split(x, labels, classes, {})) for x in views)
    best, second = plain.softmax(1).topk(2).values.unbind(1)
    gap = (best - second).median().item() + 1e-6
    monkeypatch.setattr(importlib.import_module(f"{folder}.utils.views"), "UNSURE", gap)
    unsure = (best - second < gap)[:, None]
    expected = torch.where(unsure, plain / 2 + (one + other) / 4, plain)
    logits = predict(model, Split(images, labels, classes, {}), shift=True)
    torch.testing.assert_close(logits, expected)
    assert unsure.sum() == 20 and not torch.allclose(logits, plain)


@pytest.mark.parametrize("flags", [[], ["--flip-test"], ["--shift-test"]])
@pytest.mark.parametrize("folder", ["CNN_Torch", "CNN_Manual"])
def test_the_flags_reach_both_validation_and_test(folder, flags, tmp_path, monkeypatch, capsys):
    seen, judge = [], script(folder).judge

    def spy(model, images, flip, shift):
        seen.append((flip, shift))
        return judge(model, images, flip, shift)

    monkeypatch.setattr("common.plots.draw_curves", lambda path, history: None)
    monkeypatch.setattr(script(folder), "judge", spy)
    argv = [*small(folder), "--epochs", 1, *flags, "--run-dir", tmp_path / "run"]
    assert call(capsys, script(folder).main, *argv).code == 0
    validated = len(seen)
    assert call(capsys, script(folder, "test").main, "--run-dir", tmp_path / "run").code == 0
    tested = len(seen)
    picture = Image.new("L", (28, 28))
    picture.paste(255, (8, 8, 20, 20))  # a square
    picture.save(tmp_path / "picture.png")
    argv = [tmp_path / "picture.png", "--run-dir", tmp_path / "run"]
    assert call(capsys, script(folder, "predict").main, *argv).code == 0
    assert 0 < validated < tested < len(seen)
    assert set(seen) == {("--flip-test" in flags, "--shift-test" in flags)}


@pytest.mark.parametrize("folder", ["CNN_Torch", "CNN_Manual"])
def test_a_run_from_before_the_flag_is_judged_as_it_was(folder, tmp_path, monkeypatch, capsys):
    """--shift-test is a default of MNIST now: here, of shapes."""
    monkeypatch.setattr("common.plots.draw_curves", lambda path, history: None)
    monkeypatch.setitem(script(folder).RECIPES["shapes"], "shift_test", True)
    run = tmp_path / "run"
    argv = [*small(folder), "--epochs", 1, "--no-shift-test", "--run-dir", run]
    assert call(capsys, script(folder).main, *argv).code == 0
    config = json.loads((run / "config.json").read_text())
    assert config.pop("shift_test") is False
    (run / "config.json").write_text(json.dumps(config))
    looks, judge = set(), script(folder).judge
    monkeypatch.setattr(
        script(folder), "judge", lambda m, x, *how: looks.add(how) or judge(m, x, *how)
    )
    assert call(capsys, script(folder, "test").main, "--run-dir", run).code == 0
    assert call(capsys, script(folder).main, "--resume", "--run-dir", run, "--epochs", 2).code == 0
    assert looks == {(False, False)}


@pytest.mark.parametrize(
    "folder, flags", [("CNN_Torch", []), ("CNN_Torch", ["--no-channels-last"]), ("CNN_Manual", [])]
)
def test_mixed_precision_learns_as_single_precision_does(folder, flags, tmp_path, monkeypatch):
    monkeypatch.setattr("common.plots.draw_curves", lambda path, history: None)
    losses = []
    for name, extra in (("float32", []), ("mixed", ["--precision", "bfloat16", *flags])):
        argv = [*small("CNN"), "--epochs", "4", "--run-dir", str(tmp_path / name), *extra]
        script(folder).main(argv)
        losses.append([float(row["train_loss"]) for row in history(tmp_path / name)])
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


def test_float16_keeps_its_scale_in_the_checkpoint(tmp_path, monkeypatch):
    """The scaler's steps, without float16 arithmetic, which is for GPUs."""
    monkeypatch.setattr("common.plots.draw_curves", lambda path, history: None)

    def scaler(device, precision="float32"):
        return torch.amp.GradScaler(device.type, enabled=precision == "float16")

    monkeypatch.setattr(script("CNN_Torch"), "grad_scaler", scaler)
    flags = ["--precision", "float16", "--clip", "0.5", "--epochs", "2"]
    script("CNN_Torch").main([*small("CNN"), *flags, "--run-dir", str(tmp_path / "scaled")])
    script("CNN_Torch").main([*small("CNN"), *flags[2:], "--run-dir", str(tmp_path / "plain")])
    scaled, plain = (history(tmp_path / name) for name in ("scaled", "plain"))
    for ours, theirs in zip(scaled, plain, strict=True):  # scaling by 2ⁿ changes no bit
        assert without_seconds(ours) == without_seconds(theirs)
    state = checkpoint.load(tmp_path / "scaled" / "last.safetensors")
    assert state["scaler"]["scale"] == 2.0**16 and state["scaler"]["_growth_tracker"] == 8
    assert checkpoint.load(tmp_path / "plain" / "last.safetensors")["scaler"] == {}


def test_unknown_precision_is_one_line(capsys):
    result = call(capsys, script("CNN_Torch").main, "--precision", "float8")
    assert_one_line(result, "--precision", "float8", "bfloat16")
