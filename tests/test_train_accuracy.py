"""--train-accuracy N of the image classifiers: after each epoch, the accuracy on N examples of the
training split, measured as the validation figures are."""

import pytest
import torch
from torch import nn

from common import checkpoint
from common.evaluation import best_weights
from common.run import Run
from tests.running import (
    CNNS,
    MLPS,
    Stop,
    assert_ended_alike,
    assert_one_line,
    call,
    crash,
    differences,
    history,
    kind,
    script,
    small,
    without_seconds,
)

CLASSIFIERS = [*MLPS, *CNNS, "ResNet", "ViT"]
IMAGES = ["--crop", 4, "--flip", "--cutout", 8, "--mixup", 0.4, "--ema", 0.3, "--flip-test"]
MOVED = ["--shift", 4, "--rotation", 90, "--zoom", 0.5]
REGULARISED = {  # in training mode, and with changed images, the accuracy would be another
    "MLP": ["--batch-norm", "--dropout", 0.7, "--input-dropout", 0.3, "--epochs", 3],
    "CNN": [*MOVED, "--dropout", 0.5, "--epochs", 3, "--flip-test"],
    "ResNet": [*IMAGES, "--epochs", 3],
    "ViT": [*IMAGES, "--dropout", 0.5, "--drop-path", 0.5, "--epochs", 3],
}
SIZE = 60  # examples to measure on
pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def seen(monkeypatch) -> list:
    """(run, training split) of every run that is announced."""
    found, announce = [], Run.announce

    def note(self, train, validation):
        found.append((self, train))
        announce(self, train, validation)

    monkeypatch.setattr(Run, "announce", note)
    return found


def train(folder, run_dir, *argv):
    argv = [*small(folder), *REGULARISED[kind(folder)], "--run-dir", run_dir, *argv]
    script(folder).main([str(word) for word in argv])


def accuracy_by_hand(folder, model, args, data, rows) -> float:
    """Of some rows of a split, by the network as it is used after training."""
    model.eval()
    forward = model if isinstance(model, nn.Module) else model.forward
    images = data.images(rows)
    if folder in ("ResNet", "ViT"):
        normalize = script(folder, "dataset.normalize").Normalize
        images = normalize(args.dataset, images.device)(images)
    with torch.no_grad():
        logits = forward(images)
        if getattr(args, "flip_test", False):
            logits = (logits + forward(images.flip(3))) / 2
    return (logits.argmax(1) == data.labels[rows]).double().mean().item()


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize("folder", CLASSIFIERS)
def test_the_figure_is_that_of_the_checkpoint_in_evaluation_mode(folder, seed, tmp_path, seen):
    """On the same examples for every seed, which are among those that are trained on."""
    train(folder, tmp_path, "--seed", seed, "--train-accuracy", SIZE)
    run, data = seen[0]
    rows = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:SIZE]
    figures = [float(row["train_accuracy"]) for row in history(tmp_path)]
    assert len(figures) == 3 and len(data) > SIZE
    for name in ("best", "last"):
        state = checkpoint.load(tmp_path / f"{name}.safetensors")
        run.model.load_state_dict(best_weights(state))
        expected = accuracy_by_hand(folder, run.model, run.args, data, rows)
        assert figures[state["epoch"] - 1] == pytest.approx(expected, abs=1e-6), name


@pytest.mark.parametrize("folder", CLASSIFIERS)
def test_the_flag_changes_nothing_of_what_is_learned(folder, tmp_path):
    for name, more in (("plain", []), ("measured", ["--train-accuracy", SIZE])):
        train(folder, tmp_path / name, "--epochs", 2, *more)
    for name in ("last", "best"):
        plain, measured = (
            without_seconds(checkpoint.load(tmp_path / run / f"{name}.safetensors"))
            for run in ("plain", "measured")
        )
        sizes = [state["flags"].pop("train_accuracy") for state in (plain, measured)]
        figures = [row.pop("train_accuracy") for row in measured["history"]]
        assert sizes == [0, SIZE] and len(figures) == len(plain["history"])
        assert differences(measured, plain) == []
    assert "train_accuracy" not in history(tmp_path / "plain")[0]


@pytest.mark.parametrize("step", ["in the second epoch", "the last of an epoch"])
@pytest.mark.parametrize("folder", CLASSIFIERS)
def test_stopped_and_resumed_it_goes_on_bit_for_bit(folder, step, tmp_path, monkeypatch, seen):
    flags = ["--epochs", 2, "--train-accuracy", SIZE]
    train(folder, tmp_path / "whole", *flags)
    run, data = seen[0]
    an_epoch = data.num_batches(run.args.batch_size)
    with monkeypatch.context() as patch, pytest.raises(Stop):
        crash(patch, an_epoch + 2 if step == "in the second epoch" else an_epoch)
        train(folder, tmp_path / "run", *flags)
    script(folder).main(["--resume", "--run-dir", str(tmp_path / "run")])
    assert_ended_alike(tmp_path / "run", tmp_path / "whole")
    assert all(row["train_accuracy"] for row in history(tmp_path / "run"))


@pytest.mark.parametrize("folder", CLASSIFIERS)
def test_more_examples_than_there_are_is_one_line(folder, tmp_path, capsys):
    """And as many as there are is all of them."""
    size = int(small(folder)[3])
    argv = [*small(folder), "--epochs", 1, "--run-dir", tmp_path / "run", "--train-accuracy"]
    result = call(capsys, script(folder).main, *argv, size + 1)
    assert_one_line(result, f"--train-accuracy {size + 1}", f"{size} training examples")
    assert not (tmp_path / "run").exists()
    assert call(capsys, script(folder).main, *argv, size).code == 0
    (row,) = history(tmp_path / "run")
    right = float(row["train_accuracy"]) * size
    assert right == pytest.approx(round(right), abs=1e-4)


def test_a_run_that_began_without_it_goes_on_without_it(tmp_path, capsys):
    train("MLP_Manual", tmp_path / "run", "--epochs", 1)
    again = ["--resume", "--run-dir", tmp_path / "run", "--epochs", 2]
    result = call(capsys, script("MLP_Manual").main, *again, "--train-accuracy", 5)
    assert_one_line(result, "--train-accuracy 5", "contradicts")
    assert call(capsys, script("MLP_Manual").main, *again).code == 0
    assert ["train_accuracy" in row for row in history(tmp_path / "run")] == [False, False]
