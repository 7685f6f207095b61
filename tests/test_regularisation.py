"""CNN_Torch/regularisation.py: its techniques against torchvision and by hand, and the study."""

import json

import pytest
import torch
from torch import nn
from torchvision.transforms import v2

from CNN_Torch import regularisation as study
from CNN_Torch.dataset import load_training
from common.results import report
from tests.running import Stop, assert_one_line, call, make_digits

NAMES = list(study.TECHNIQUES)


@pytest.fixture
def flags(tmp_path, monkeypatch):
    """The flags of a study of a small network on few images, and its file."""
    monkeypatch.setattr(study, "NETWORK", {"channels": [4], "hidden_size": 8})
    monkeypatch.setattr(study, "SIZES", [40, None])
    monkeypatch.setattr(study, "BATCH_SIZE", 16)
    path = tmp_path / "study" / "rows.json"
    place = make_digits(tmp_path / "data")
    flags = ["--dataset", "mnist", "--data-dir", place, "--steps", 10, "--seeds", 2]
    return [*flags, "--output", path], path


@pytest.fixture
def digits(tmp_path):
    return load_training("mnist", str(make_digits(tmp_path / "digits")))


def rows(path) -> list[tuple]:
    found = json.loads(path.read_text())["rows"]
    return [(row["seed"], row["images"], row["technique"]) for row in found]


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_mixup_is_torchvisions(alpha):
    """The mixed images bit by bit, and the loss with its mixed labels."""
    images, labels = torch.randn(6, 1, 5, 5), torch.tensor([0, 1, 2, 0, 1, 2])
    logits, criterion = torch.randn(6, 3), nn.CrossEntropyLoss(label_smoothing=0.1)
    torch.manual_seed(3)
    found, others, lam = study.mixup(images, labels, alpha)
    torch.manual_seed(3)
    expected, shares = v2.MixUp(alpha=alpha, num_classes=3)(images, labels)
    assert 0 < lam < 1 and torch.allclose(found, expected, atol=1e-6)
    loss = lam * criterion(logits, labels) + (1 - lam) * criterion(logits, others)
    assert loss.item() == pytest.approx(criterion(logits, shares).item(), rel=1e-5)


def test_batch_norm_is_one_of_the_techniques(digits):
    """None has none; all other layers stay where they are."""
    plain, normal = (study.make_model(digits[0], 0.0, norm) for norm in (False, True))
    kinds = [[type(layer).__name__ for layer in model.features] for model in (plain, normal)]
    assert "BatchNorm2d" in kinds[1]
    assert kinds[0] == [k.replace("BatchNorm2d", "Identity") for k in kinds[1]]
    images = torch.randn(4, 1, 28, 28)
    alone = torch.cat([plain(image[None]) for image in images])
    assert torch.allclose(plain.train()(images), alone, atol=1e-5), "no image sees the others"


def test_all_together_is_every_technique():
    together = study.TECHNIQUES["all together"]
    assert together.keys() == study.NONE.keys()
    assert all(together[name] != study.NONE[name] for name in together)
    for technique in NAMES[1:-1]:
        assert len(study.TECHNIQUES[technique]) == 1


def final(digits, **changes) -> nn.Module:
    torch.manual_seed(0)
    values = {**study.NONE, "dataset": "mnist", **changes}
    *_, (step, model) = study.fit(values, digits[0], 10, seed=0)
    assert step == 10
    return model


@pytest.mark.parametrize("technique", [n for n in NAMES if n not in ("none", "early stopping")])
def test_each_technique_changes_what_is_learned(technique, digits):
    weights = [
        torch.cat([p.detach().flatten() for p in final(digits, **changes).parameters()])
        for changes in ({}, {}, study.TECHNIQUES[technique])
    ]
    assert torch.equal(weights[0], weights[1])
    other = weights[2]
    assert len(other) != len(weights[0]) or not torch.allclose(other, weights[0], atol=1e-6)


def test_average_is_what_is_evaluated(digits):
    """Of all steps, the average of the weights: by hand, with the decay's warm-up."""
    seen, plain = [], final
    update = torch.optim.AdamW.step

    def step(self, *args, **kwargs):
        update(self, *args, **kwargs)
        seen.append(self.param_groups[0]["params"][0].detach().clone())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", step)
        model = plain(digits, ema=0.5)
    mean = seen[0]
    for n, weight in enumerate(seen[1:], start=1):
        decay = min(0.5, (1 + n) / (10 + n))
        mean = decay * mean + (1 - decay) * weight
    assert torch.allclose(next(model.parameters()), mean, atol=1e-6)


def test_early_stopping_takes_the_check_with_the_lowest_loss_it_watched(digits, monkeypatch):
    """Losses of the watched half are 3, 2, 4, 5, …: it stops after the fourth check, and the second
    one counts. The reported half and the training images have other losses."""
    train, validation = digits
    watched = iter([3.0, 2.0, 4.0, 5.0, 1.0, 0.5])
    half, calls = validation.labels[::2], []

    def metrics(logits, labels):
        mine = labels.shape == half.shape and torch.equal(labels, half)
        calls.append(mine)
        return {"loss": next(watched) if mine else 9.0, "accuracy": len(calls) / 1000}

    monkeypatch.setattr(study, "metrics_of", metrics)
    args = study.Namespace(dataset="mnist", steps=20, sizes=[40, None])
    assert not torch.equal(validation.labels[1::2], half)
    row = study.run("early stopping", 40, 0, train, validation, args)
    assert row["history"]["step"] == [2, 4, 6, 8] and row["step"] == 4
    assert row["validation"]["accuracy"] == row["history"]["validation"][1]
    watched = iter([3.0, 2.0, 4.0, *[5.0] * 7])
    assert study.run("none", 40, 0, train, validation, args)["step"] == 20


def test_training_accuracy_is_of_the_same_images_without_regularisation(flags, monkeypatch, capsys):
    argv, path = flags
    seen, predict = [], study.predict

    def note(model, data):  # and thus without mirrored or moved images
        logits = predict(model, data)
        assert {module.training for module in model.modules()} == {False}
        seen.append(data.inputs)
        return logits

    monkeypatch.setattr(study, "predict", note)
    monkeypatch.setattr(study, "TECHNIQUES", {"all together": study.TECHNIQUES["all together"]})
    call(capsys, study.main, *argv, "--seeds", 1)
    training = seen[::3]  # then both halves of the validation split
    assert len(training) > 10 and {len(images) for images in training} == {40}
    assert all(torch.equal(images, training[0]) for images in training), "of both sizes"
    assert [images for _, images, _ in rows(path)] == [40, 200]


@pytest.mark.parametrize("after", [0, 23])
@pytest.mark.long
def test_a_killed_study_goes_on_and_does_nothing_twice(after, flags, monkeypatch, capsys):
    argv, path = flags
    run, begun = study.run, []

    def counted(technique, size, seed, *rest):
        begun.append((seed, size or 200, technique))
        if len(begun) == after + 1:
            raise Stop
        return run(technique, size, seed, *rest)

    monkeypatch.setattr(study, "run", counted)
    with pytest.raises(Stop):
        call(capsys, study.main, *argv)
    before = json.loads(path.read_text())["rows"] if after else []
    assert len(before) == after
    result = call(capsys, study.main, *argv)
    assert (result.code, result.err) == (0, "")
    expected = [(seed, size, n) for seed in range(2) for size in (40, 200) for n in NAMES]
    assert rows(path) == expected and len(begun) == len(expected) + 1
    now = path.read_bytes()
    assert json.loads(now)["rows"][:after] == before, "a row was made again"
    call(capsys, study.main, *argv)
    assert len(begun) == len(expected) + 1 and path.read_bytes() == now, "it was complete"


def test_bad_flags_and_other_rows_are_one_line(flags, monkeypatch, capsys):
    argv, path = flags
    monkeypatch.setattr(study, "TECHNIQUES", {"none": {}})
    call(capsys, study.main, *argv)
    before = path.read_bytes()
    assert_one_line(call(capsys, study.main, *argv, "--steps", 11), path, "other flags", "--output")
    assert_one_line(call(capsys, study.main, *argv, "--steps", 9), "--steps", "10")
    assert_one_line(call(capsys, study.main, *argv, "--dataset", "cifar10"), "--dataset", "cifar10")
    assert_one_line(call(capsys, study.main, *argv, "--seeds", 0), "--seeds")
    assert path.read_bytes() == before
    path.write_text("{")
    assert_one_line(call(capsys, study.main, *argv), path, "damaged")


@pytest.mark.smoke
@pytest.mark.pictures
@pytest.mark.long
def test_quick_study_shows_every_technique(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(study, "NETWORK", {"channels": [2], "hidden_size": 4})
    monkeypatch.setattr(study, "QUICK", {**study.QUICK, "steps": 10, "seeds": 1, "sizes": [64]})
    path = tmp_path / "quick.json"
    result = call(capsys, study.main, "--quick", "--output", path)
    assert (result.code, result.err) == (0, "")
    assert [name for _, _, name in rows(path)] == NAMES
    assert "mnist-sample" in result.out and all(f"| {name} |" in result.out for name in NAMES)
    for picture in ("regularisation.png", "regularisation_curves.png"):
        assert (tmp_path / picture).stat().st_size > 5_000


@pytest.mark.long
def test_the_readmes_table_is_made_of_the_rows(flags, tmp_path, monkeypatch, capsys):
    argv, path = flags
    call(capsys, study.main, *argv)
    readme = tmp_path / "CNN_Torch" / "README.md"
    readme.parent.mkdir()
    readme.write_text("<!-- regularisation -->\n<!-- /regularisation -->\n")
    (readme.parent / "regularisation.py").write_text("")
    table = study.table
    monkeypatch.setattr(study, "table", lambda: table(path))
    text = report.fill(readme)
    found = [r for r in json.loads(path.read_text())["rows"] if r["technique"] == "mixup"]
    cells = []
    for images in (40, 200):
        training, validation = (
            torch.tensor(values, dtype=torch.float64)
            for values in (
                [100 * r[split]["accuracy"] for r in found if r["images"] == images]
                for split in ("training", "validation")
            )
        )
        cells += [f"{training.mean():.1f}", f"{validation.mean():.1f} ± {validation.std():.1f}"]
        cells += [f"{(training - validation).mean():.1f}"]
    assert f"| mixup | {' | '.join(cells)} |" in text
    assert "`python CNN_Torch/regularisation.py --dataset mnist --steps 10`" in text
    assert table(tmp_path / "none.json") == "Nothing recorded yet."
