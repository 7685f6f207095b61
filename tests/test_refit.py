"""--refit of the folders that learn images: the validation split is learned, too."""

import json
import shutil
from argparse import Namespace

import pytest
import torch

from common import checkpoint
from tests.running import assert_one_line, call, few_shapes, history, make_digits, script, small
from tests.test_classes import make_folder
from tests.test_image_folder import make_split

CLASSIFIERS = ["ResNet", "ViT"]


@pytest.mark.parametrize("dataset", ["mnist", "shapes", "folder"])
@pytest.mark.parametrize("folder", [*CLASSIFIERS, "VAE"])
def test_refit_learns_the_validation_split_too(folder, dataset, tmp_path, monkeypatch):
    few_shapes(monkeypatch)
    load_training = script(folder, "dataset").load_training
    place = make_digits(tmp_path / "data")
    if dataset == "folder":
        place = make_folder(tmp_path / "photos", {"cat": 12, "dog": 12})
        make_split(place / "val", {"cat": 3, "dog": 2}, 500)
    flags = Namespace(dataset=dataset, data_dir=str(place), image_size=None, refit=False)
    splits = load_training(flags)
    flags.refit = True
    both, nothing = load_training(flags)
    assert nothing is None and both.classes == splits[0].classes
    if dataset == "folder":
        assert list(both.checksums) == ["train and validation"]
        shutil.rmtree(place / "val")  # then a part of train/ is held out, and comes back
        assert list(load_training(flags)[0].checksums) == ["train"] and len(both) == 29
        assert len(load_training(flags)[0]) == 24
    else:
        assert both.checksums == splits[0].checksums
    for part in ("inputs", "labels"):
        assert torch.equal(getattr(both, part), torch.cat([getattr(s, part) for s in splits]))


@pytest.mark.parametrize("folder", CLASSIFIERS)
def test_a_refitted_run_keeps_its_last_epoch(folder, tmp_path, capsys, monkeypatch):
    few_shapes(monkeypatch)
    train, evaluation = script(folder, "train"), script(folder, "test")
    monkeypatch.setattr(evaluation, "FOLDER", tmp_path / folder)
    (tmp_path / folder).mkdir()
    argv = [*small(folder), "--subset", 128, "--refit", "--epochs", 2, "--run-dir", tmp_path / "r"]
    result = call(capsys, train.main, *argv)
    assert (result.code, result.err) == (0, "") and "128 to train on, 0 held out" in result.out
    assert not any("validation" in key for row in history(tmp_path / "r") for key in row)
    assert checkpoint.load(tmp_path / "r" / "best.safetensors")["epoch"] == 2

    result = call(capsys, evaluation.main, "--run-dir", tmp_path / "r", "--record")
    assert (result.code, result.err) == (0, "")
    record = json.loads((tmp_path / folder / "results" / "shapes.json").read_text())
    assert record["data"]["examples"] == {"train": 128, "test": 32}
    assert "--refit" in record["command"]
    assert record["runs"][0]["validation"] == {} and record["runs"][0]["best_epoch"] == 2


@pytest.mark.parametrize("folder", CLASSIFIERS)
def test_refit_leaves_nothing_to_be_patient_for(folder, capsys):
    result = call(capsys, script(folder, "train").main, *small(folder), "--refit", "--patience", 1)
    assert_one_line(result, "--refit", "--patience")
