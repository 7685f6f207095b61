"""Every folder on a GPU: it learns, evaluates, goes on after a stop, and its other scripts run."""

import functools
import json
import math
import shutil

import pytest

from common.device import seed_everything
from tests.running import FOLDERS, TRANSFORMERS, Stop, call, crash, history, kind, script

pytestmark = pytest.mark.gpu

CASES = [*((folder, "") for folder in FOLDERS), *((folder, "lm") for folder in TRANSFORMERS)]
# what leaves nothing to chance that is drawn on the device (a GPU draws other numbers than a CPU),
# and steps so small that rounding does not grow
WITHOUT_CHANCE = {
    "MLP": ["--lr", 1e-3],
    "CNN": ["--lr", 1e-3, "--dropout", 0, "--shift", 0, "--rotation", 0, "--zoom", 0, "--no-flip"],
    "ResNet": ["--crop", 0, "--no-flip"],
    "ViT": ["--crop", 0, "--no-flip"],
    "LSTM": ["--word-dropout", 0],
}


def each_case(test):
    names = [f"{folder} {task}".strip() for folder, task in CASES]
    return pytest.mark.parametrize("folder, task", CASES, ids=names)(test)


@pytest.fixture(scope="module")
def trained(learn, device):
    """A function (folder, task) -> its finished run of two epochs, trained once."""
    return functools.cache(lambda folder, task="": learn(folder, device, task=task))


def losses(run_dir) -> list[float]:
    """The history's losses, epoch by epoch: of training and, where there is one, of validation."""
    return [float(row[name]) for row in history(run_dir) for name in row if name.endswith("loss")]


def facts(path) -> dict:
    """The device of a config.json or a record."""
    environment = json.loads(path.read_text())["environment"]
    return {name: environment.get(name) for name in ("device", "gpu")}


@each_case
def test_folder_learns_evaluates_and_says_on_which_gpu(
    folder, task, trained, device, gpu, tmp_path, capsys, monkeypatch
):
    run_dir = trained(folder, task)
    assert [row["epoch"] for row in history(run_dir)] == ["1", "2"]
    assert all(map(math.isfinite, losses(run_dir)))

    test = script(folder, "test")
    monkeypatch.setattr(test, "FOLDER", tmp_path / folder)
    (tmp_path / folder).mkdir()
    flags = ["--run-dir", run_dir, "--device", device, "--record", "--config", "small"]
    result = call(capsys, test.main, *flags)
    assert result.code == 0, result.err
    record = tmp_path / folder / "results" / "small.json"
    (row,) = json.loads(record.read_text())["runs"]
    assert row["test"] and all(map(math.isfinite, row["test"].values()))
    assert facts(run_dir / "config.json") == facts(record) == {"device": device.type, "gpu": gpu}


@each_case
def test_losses_are_those_of_a_cpu(folder, task, learn, device):
    """The same weights and batches: in float32 the two differ by rounding, which is 1e-7 of a
    value and grows over the steps of two epochs, so 1e-3 is asked for."""
    if folder == "GAN":
        pytest.skip("what its players learn from is drawn on the device")
    flags = WITHOUT_CHANCE.get(kind(folder), [])
    on_gpu, on_cpu = (losses(learn(folder, d, *flags, task=task)) for d in (device, "cpu"))
    assert len(on_gpu) == 4 and on_gpu == pytest.approx(on_cpu, rel=1e-3)


@each_case
def test_run_that_was_stopped_ends_as_if_it_had_not_been(
    folder, task, trained, learn, device, tmp_path
):
    """In the middle of an epoch. Not bit for bit: sums by atomic addition have no fixed order, and
    what is drawn on the device (dropout, augmentation) would differ by much more than 1e-2."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stop):
        crash(patch, step=5)
        learn(folder, device, "--run-dir", tmp_path / "run", task=task)
    assert len(history(tmp_path / "run")) < 2
    script(folder).main(["--resume", "--run-dir", str(tmp_path / "run"), "--device", device.type])
    whole = losses(trained(folder, task))
    assert losses(tmp_path / "run") == pytest.approx(whole, rel=1e-2, abs=1e-2)


@each_case
def test_run_goes_on_on_a_cpu(folder, task, trained, tmp_path, capsys):
    run_dir = shutil.copytree(trained(folder, task), tmp_path / "run")
    flags = ["--resume", "--run-dir", run_dir, "--device", "cpu", "--epochs", 3]
    result = call(capsys, script(folder).main, *flags)
    assert result.code == 0, result.err
    assert len(history(run_dir)) == 3 and all(map(math.isfinite, losses(run_dir)))


OTHER_SCRIPTS = [  # folder, task, script, flags
    ("GAN", "", "generate", "--count 4"),
    ("GAN", "", "generate", "--interpolate 2"),
    ("LSTM", "", "predict", "a film --picture {}/words.png"),
    ("RNN_Manual", "", "generate", "--length 20"),
    ("Transformer_Manual", "lm", "generate", "--length 20"),
    ("Transformer_Torch", "", "translate", "a b c"),
    ("Transformer_Torch", "", "translate", "a b c --beam 1"),
    ("Transformer_Torch", "lm", "generate", "--length 20"),
    ("VAE", "", "generate", "samples"),
    ("VAE", "", "generate", "interpolation"),
    ("VAE", "", "generate", "walk --from red --to blue"),
]


@pytest.mark.pictures
@pytest.mark.parametrize("folder, task, name, flags", OTHER_SCRIPTS)
def test_other_scripts_use_the_gpu(folder, task, name, flags, trained, device, tmp_path, capsys):
    where = ["--run-dir", trained(folder, task), "--device", device]
    words = flags.format(tmp_path).split()
    result = call(capsys, script(folder, name).main, *words, *where)
    assert result.code == 0, result.err
    assert result.out.strip()


@pytest.mark.pictures
def test_echo_study_uses_the_gpu(device, tmp_path, capsys):
    seed_everything(0)
    flags = ["--delays", 5, "--steps", 3, "--hidden-size", 8, "--seeds", 1]
    where = ["--device", device, "--output", tmp_path / "echo.png"]
    result = call(capsys, script("RNN_Manual", "echo").main, *flags, *where)
    assert result.code == 0, result.err
    assert (tmp_path / "echo.png").is_file()
