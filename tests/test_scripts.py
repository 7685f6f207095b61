"""train.py and test.py as users run them: from anywhere, with bad flags, without data, recorded."""

import functools
import itertools
import json
import os
import re
import runpy
import shlex
import shutil
import socket
import sys

import pytest
import torch
from PIL import Image
from torchvision import datasets

from common import checkpoint, cli, data
from common.data import ROOT
from common.history import counted, describe
from common.results import compare, report
from MLP_Manual.dataset import mnist
from tests.running import (
    AUTOENCODERS,
    CNNS,
    FOLDERS,
    GAMES,
    MLPS,
    READERS,
    TRANSFORMERS,
    WRITERS,
    assert_one_line,
    call,
    few_shapes,
    finish,
    history,
    kind,
    make_digits,
    script,
    short_strings,
    small,
    start,
)

SCRIPTS = [f"{folder}/{name}" for folder in FOLDERS for name in ("train.py", "test.py")
           if (ROOT / folder / name).is_file()]  # fmt: skip
TESTED = [folder for folder in FOLDERS if f"{folder}/test.py" in SCRIPTS]


@pytest.fixture(autouse=True)
def few_coloured_shapes(monkeypatch):
    """Where the networks are larger."""
    few_shapes(monkeypatch)
    short_strings(monkeypatch)


# ---- as a user starts them ----


@pytest.mark.smoke
@pytest.mark.long
def test_script_trains_by_its_path_from_the_root(tmp_path):
    argv = [*small("CNN"), "--epochs", 1, "--run-dir", tmp_path / "run"]
    result = finish(start("CNN_Manual/train.py", *argv, cold=True))
    assert (result.code, result.err) == (0, "")
    assert len(history(tmp_path / "run")) == 1
    assert "\x1b" not in result.out and "\r" not in result.out


@pytest.mark.long
def test_bad_flag_is_one_line_and_exit_code_2_in_a_process_too():
    process = start("-m", "MLP_Torch.train", "--epochs", "-1", cold=True)
    assert_one_line(finish(process), "--epochs", "'-1'")


@pytest.mark.smoke
@pytest.mark.parametrize("path", SCRIPTS)
def test_help_reads(path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [path, "--help"])
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.syspath_prepend(str((ROOT / path).parent))  # as python does, and runpy does not
    monkeypatch.delitem(sys.modules, "start", raising=False)
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(ROOT / path), run_name="__main__")
    assert not stopped.value.code
    out, err = capsys.readouterr()
    assert err == "" and max(map(len, out.splitlines())) <= 100
    assert out.startswith("usage: ") and "--run-dir" in out and "--device" in out
    assert len(re.findall(r"^  --\w", out, re.MULTILINE)) >= 5
    assert "==SUPPRESS==" not in out and "object at 0x" not in out


@pytest.mark.parametrize("main", [report.main, compare.main])
def test_help_of_the_tools_reads(main, capsys):
    result = call(capsys, main, "--help")
    assert result.code == 0 and result.out.startswith("usage: ") and result.err == ""


IMPORTS = """
import importlib, sys
for folder in sys.argv[1:]:
    importlib.import_module(f"{folder}.train").make_parser()
slow = {"kornia", "matplotlib", "mlxtend", "pandas", "scipy", "sklearn", "torchvision"}
print(*sorted(slow & sys.modules.keys()))
"""


@pytest.mark.long
def test_a_script_imports_what_is_slow_when_it_needs_it():
    """So --help comes at once, and a wrong flag is said at once."""
    assert finish(start("-c", IMPORTS, *FOLDERS, cold=True)) == (0, "\n", "")


@pytest.fixture
def double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


IN_DOUBLE = [(folder, "") for folder in FOLDERS] + [
    ("ResNet", "--ema 0.5 --mixup 0.4 --cutmix 0.4 --crop 2 --flip --colour 0.2 --cutout 4"),
    ("ViT", "--ema 0.5 --mixup 0.4 --cutmix 0.4 --crop 2 --flip --colour 0.2 --cutout 4"),
    ("LSTM", "--pooling attention --word-dropout 0.1 --embedding-dropout 0.1"),
    ("VAE", "--model cvae --network conv --channels 4"),
    ("VAE", "--model iwae --dreg --likelihood gaussian"), ("VAE", "--model ae"),
    ("GAN", "--model wgan-gp"), ("GAN", "--loss hinge"), ("GAN", "--dataset mnist"),
]  # fmt: skip


@pytest.mark.parametrize("folder, flags", IN_DOUBLE)
def test_everything_runs_in_the_default_dtype(folder, flags, tmp_path, capsys, double_precision):
    """A notebook that computes in double precision; everything that is learned does, too."""
    path = tmp_path / "run"
    argv = [*small(folder), *flags.split(), "--epochs", 1, "--run-dir", path]
    if "mnist" in flags:
        argv += ["--data-dir", make_digits(tmp_path), "--subset", 64, "--channels", 8]
    result = call(capsys, script(folder).main, *argv)
    assert (result.code, result.err) == (0, "")
    weights = checkpoint.load(path / "best.safetensors")["model"].values()
    assert {w.dtype for w in weights if w.is_floating_point()} == {torch.float64}
    result = call(capsys, script(folder, "test").main, "--run-dir", path)
    assert (result.code, result.err) == (0, "")


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_run_of_a_few_steps_says_why_it_learned_nothing(folder, tmp_path, capsys):
    """And one of more steps does not."""
    batch = [80 if folder in TRANSFORMERS else 8, 128 if folder in TRANSFORMERS else 16]
    argv = [*small(folder), "--batch-size", batch[1], "--subset", 32, "--epochs", 1]
    argv += ["--window", 1] if folder in WRITERS else []
    argv += ["--critic-steps", 1] if folder in GAMES else []
    result = call(capsys, script(folder).main, *argv, "--run-dir", tmp_path / "short")
    steps = checkpoint.load(tmp_path / "short" / "last.safetensors")["step"]
    assert result.code == 0 and f"only {counted(steps, 'step')} of learning" in result.out
    unit = "characters" if folder in WRITERS else "examples"
    unit = "pairs of sentences" if folder in TRANSFORMERS else unit
    assert (
        f" held out ({unit})\n" in result.out and f"1 epoch, --batch-size {batch[1]}" in result.out
    )
    argv += ["--batch-size", batch[0], "--epochs", 12]
    result = call(capsys, script(folder).main, *argv, "--run-dir", tmp_path / "long")
    assert result.code == 0 and "of learning" not in result.out


# ---- what a user may get wrong ----

BAD_FLAGS = [
    "--epochs -1", "--epochs 0", "--epochs x", "--epochs 1.5", "--batch-size 0", "--lr 0",
    "--lr -1", "--lr nan", "--dropout 1", "--dropout -0.1", "--label-smoothing 1", "--clip -1",
    "--weight-decay x", "--patience -1", "--warmup -1", "--seed -1", "--dataset imagenet",
    "--dataset", "--optimizer lion", "--schedule linear", "--device tpu", "--unknown",
    "--subset 0", "--subset 1000000", "--warmup 1000000", "stray",
    pytest.param("--device cuda", marks=pytest.mark.skipif(torch.cuda.is_available(), reason="")),
]  # fmt: skip


@pytest.mark.smoke
@pytest.mark.parametrize("flag", BAD_FLAGS)
@pytest.mark.parametrize("folder", FOLDERS)
def test_bad_flag_is_one_line_and_leaves_nothing(folder, flag, tmp_path, capsys):
    argv = [*small(folder), "--run-dir", tmp_path / "run", *flag.split()]
    result = call(capsys, script(folder).main, *argv)
    assert_one_line(result, *flag.split()[-1:])
    assert result.out == "" and not (tmp_path / "run").exists()


@pytest.mark.parametrize("folder", MLPS)
def test_label_smoothing_is_of_the_cross_entropy_alone(folder, tmp_path, capsys):
    argv = [*small(folder), "--loss", "mse", "--run-dir", tmp_path / "run"]
    result = call(capsys, script(folder).main, *argv, "--label-smoothing", 0.1)
    assert_one_line(result, "--label-smoothing", "cross-entropy")
    assert call(capsys, script(folder).main, *argv, "--epochs", 1).code == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["label_smoothing"] == 0


@pytest.mark.parametrize("folder", MLPS)
def test_without_data_a_run_of_mse_can_be_resumed_and_tested(
    folder, no_data, tmp_path, capsys, monkeypatch
):
    """The sample that is learned instead has a recipe with label smoothing."""
    move(folder, monkeypatch, tmp_path)
    few = ["--loss", "mse", "--hidden-sizes", 8, "--subset", 200, "--run-dir", tmp_path / "run"]
    assert call(capsys, script(folder).main, *few, "--epochs", 1).code == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["dataset"], config["label_smoothing"]) == ("mnist-sample", 0)
    again = ["--resume", "--epochs", 2, "--run-dir", tmp_path / "run"]
    assert call(capsys, script(folder).main, *again).code == 0
    tested = call(capsys, script(folder, "test").main, "--run-dir", tmp_path / "run")
    assert tested.code == 0, tested


@pytest.mark.parametrize("flag", ["--batch-size 1", "--subset 1"])
@pytest.mark.parametrize("folder", MLPS)
def test_batch_of_one_without_a_variance_is_one_line(folder, flag, tmp_path, capsys):
    argv = [*small(folder), "--epochs", 1, "--run-dir", tmp_path / "run", *flag.split()]
    assert_one_line(call(capsys, script(folder).main, *argv), "batch")
    result = call(capsys, script(folder).main, *argv, "--no-batch-norm")
    assert result.code == 0, "without batch normalisation, one example is a batch"


@pytest.mark.parametrize("folder", CNNS)
def test_more_blocks_than_the_image_can_be_halved_is_one_line(folder, tmp_path, capsys):
    argv = [*small(folder), "--channels", *"11111", "--run-dir", tmp_path / "run"]
    assert_one_line(call(capsys, script(folder).main, *argv), "channels")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("folder", FOLDERS)
def test_absent_data_dir_is_one_line(folder, tmp_path, capsys, monkeypatch):
    wanted = {**dict.fromkeys(READERS, "imdb"), **dict.fromkeys(WRITERS, "tiny-shakespeare")}
    wanted |= dict.fromkeys(TRANSFORMERS, "multi30k")
    named = ["--dataset", wanted.get(folder, "fashion-mnist")]
    for argv in (["--data-dir", tmp_path / "absent"], named):
        if argv is named:
            monkeypatch.setenv("PLAYGROUND_DATA", str(tmp_path / "absent"))
        result = call(capsys, script(folder).main, *argv, "--run-dir", tmp_path / "run")
        assert_one_line(result, tmp_path / "absent")
        assert not (tmp_path / "run").exists()


@pytest.fixture
def no_data(tmp_path, monkeypatch):
    """Neither files nor a mirror: the mirrors are a port of this machine where nobody listens."""
    monkeypatch.setattr(data, "ROOT", tmp_path / "repository")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        for dataset in (datasets.MNIST, datasets.FashionMNIST):
            monkeypatch.setattr(dataset, "mirrors", [url])
        monkeypatch.setattr("LSTM.dataset.imdb.URLS", [url])
        for folder in TRANSFORMERS:
            monkeypatch.setattr(f"{folder}.dataset.multi30k.URLS", [url])
        yield


def move(folder: str, monkeypatch, place):
    """Runs, results and data of a folder are below `place` from now on; returns its new path."""
    moved = place / folder
    (moved / "results").mkdir(parents=True)
    reading = "dataset.texts" if folder in WRITERS else "dataset"
    reading = "dataset.translation" if folder in TRANSFORMERS else reading
    modules = ["train", reading] + ["test"] * (folder in TESTED)
    for module in modules:
        monkeypatch.setattr(script(folder, module), "FOLDER", moved)
    return moved


@pytest.mark.parametrize(
    "folder, dataset",
    [(folder, dataset) for folder in FOLDERS if folder not in WRITERS
     for dataset in (["imdb"] if folder in READERS else
                     ["multi30k"] if folder in TRANSFORMERS else ["mnist", "fashion-mnist"])],
)  # fmt: skip
def test_named_dataset_that_cannot_be_had_is_one_line(
    folder, dataset, no_data, tmp_path, capsys, monkeypatch
):
    move(folder, monkeypatch, tmp_path)
    argv = ["--dataset", dataset, "--run-dir", tmp_path / "run"]
    result = call(capsys, script(folder).main, *argv)
    assert_one_line(result, f"{dataset} is not in", "could not be downloaded")
    assert not (tmp_path / "run").exists()


def test_without_data_the_default_run_takes_a_sample_and_says_so(
    no_data, tmp_path, capsys, monkeypatch
):
    moved = move("MLP_Manual", monkeypatch, tmp_path)
    monkeypatch.setattr(mnist, "sample", functools.cache(mnist.sample))  # slow to read
    argv = ["--epochs", 1, "--hidden-sizes", 8, "--subset", 500]
    result = call(capsys, script("MLP_Manual").main, *argv)
    assert result.code == 0
    assert "SAMPLE" in result.err and "Traceback" not in result.err
    assert "mnist-sample" in result.out and "small sample" in result.out

    (run_dir,) = (moved / "runs").iterdir()
    assert run_dir.name == "0001-mnist-sample"
    assert [row["dataset"] for row in history(run_dir)] == ["mnist-sample"]
    result = call(capsys, script("MLP_Manual", "test").main, "--record")
    assert (result.code, result.err) == (0, "") and "mnist-sample" in result.out
    record = json.loads((moved / "results" / "mnist-sample.json").read_text())
    assert record["sample"] is True and record["dataset"] == "mnist-sample"
    examples = {"train": 500, "validation": 500, "test": 1_000}
    assert record["data"]["examples"] == examples


# ---- test.py ----


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A function (folder, seed) -> its finished run of two epochs, trained once."""

    @functools.cache
    def train(folder: str, seed: int = 0):
        path = tmp_path_factory.mktemp(folder) / "run"
        argv = [*small(folder), "--epochs", "2", "--seed", str(seed), "--run-dir", str(path)]
        script(folder).main(argv)
        return path

    return train


PICTURES = {
    "MLP": ["boundary.png", "confusion.png"],
    "CNN": ["confusion.png", "feature_maps.png", "filters.png", "mistakes.png"],
}

PICTURED = [folder for folder in TESTED if kind(folder) in PICTURES]  # others in their own tests


@pytest.mark.pictures
@pytest.mark.smoke
@pytest.mark.parametrize("folder", PICTURED)
def test_evaluation_draws_pictures_and_prints_the_accuracy(folder, trained, tmp_path, capsys):
    run_dir = shutil.copytree(trained(folder), tmp_path / "run")
    (run_dir / "last.safetensors").unlink()  # it is the best that counts
    result = call(capsys, script(folder, "test").main, "--run-dir", run_dir)
    assert (result.code, result.err) == (0, "")
    expected = sorted(["curves.png", *PICTURES[kind(folder)]])
    assert sorted(path.name for path in run_dir.glob("*.png")) == expected
    for name in PICTURES[kind(folder)]:
        assert (run_dir / name).read_bytes().startswith(b"\x89PNG")

    config = json.loads((run_dir / "config.json").read_text())
    test = script(folder, "dataset").load_test(config["dataset"])
    model = script(folder).build_model(cli.argparse.Namespace(**config), test)
    model.load_state_dict(checkpoint.load(run_dir / "best.safetensors")["model"])
    with torch.no_grad():
        predictions = model.eval().forward(test.inputs).argmax(1)
    accuracy = (predictions == test.labels).double().mean().item()
    assert (
        f"accuracy {accuracy:.2%}".replace("%", " %") in result.out
        and f"{len(test):,} examples" in result.out
    )


@pytest.mark.pictures
@pytest.mark.parametrize("folder", PICTURED)
def test_evaluation_of_images_draws_mistakes(folder, tmp_path, capsys):
    place = make_digits(tmp_path)
    size = ["--hidden-sizes", 8] if folder in MLPS else ["--channels", 4, 4]
    argv = ["--data-dir", place, "--epochs", 1, *size, "--run-dir", tmp_path / "run"]
    assert call(capsys, script(folder).main, *argv).code == 0
    result = call(capsys, script(folder, "test").main, "--run-dir", tmp_path / "run")
    assert (result.code, result.err) == (0, "") and "40 examples" in result.out
    drawn = {path.name for path in (tmp_path / "run").glob("*.png")}
    weights = "first_layer.png" if folder in MLPS else "filters.png"
    assert {"confusion.png", "mistakes.png", weights} <= drawn


@pytest.mark.parametrize("folder", TESTED)
def test_evaluation_without_a_run_is_one_line(folder, tmp_path, capsys, monkeypatch):
    moved = move(folder, monkeypatch, tmp_path)
    main = script(folder, "test").main
    assert_one_line(call(capsys, main), moved / "runs")
    assert_one_line(call(capsys, main, "--run-dir", tmp_path / "none"), tmp_path / "none")
    for flag, part in (
        ("--device tpu", "tpu"),
        ("--unknown", "--unknown"),
        ("--run-dir", "argument"),
    ):
        assert_one_line(call(capsys, main, *flag.split()), part)


@pytest.mark.parametrize("folder", TESTED)
def test_evaluation_of_a_damaged_run_is_one_line(folder, trained, tmp_path, capsys):
    main = script(folder, "test").main
    for name in ("best.safetensors", "config.json"):
        run_dir = shutil.copytree(trained(folder), tmp_path / name)
        (run_dir / name).write_bytes((run_dir / name).read_bytes()[:100])
        assert_one_line(call(capsys, main, "--run-dir", run_dir), run_dir / name)


# ---- records ----

RECORD_KEYS = [
    "model", "dataset", "config", "sample", "command", "hyperparameters", "parameters", "data",
    "environment", "runs",
]  # fmt: skip
RUN_KEYS = ["seed", "epochs", "best_epoch", "seconds", "commit", "validation", "test"]


@pytest.fixture
def recorder(tmp_path, monkeypatch, capsys, trained):
    """A function (folder, run, *flags) that records a run below tmp_path, without pictures."""
    prepared = {}

    def record(folder, run_dir, *flags):
        module = script(folder, "test")
        if folder not in prepared:
            prepared[folder] = move(folder, monkeypatch, tmp_path)
            for name in [name for name in vars(module) if name.startswith("draw_")]:
                monkeypatch.setattr(module, name, lambda *args, **kwargs: None)
        return call(capsys, module.main, "--run-dir", run_dir, "--record", *flags)

    return record


@pytest.mark.smoke
@pytest.mark.parametrize("folder", TESTED)
def test_record_has_the_keys_of_the_design(folder, trained, recorder, tmp_path):
    result = recorder(folder, trained(folder))
    assert (result.code, result.err) == (0, "")
    dataset = small(folder)[1]
    record = json.loads((tmp_path / folder / "results" / f"{dataset}.json").read_text())
    assert [key for key in record if key != "signatures"] == RECORD_KEYS
    assert hasattr(script(folder, "model"), record["model"]) and record["sample"] is False
    assert record["dataset"] == record["config"] == dataset
    assert set(record["data"]) == {"examples", "sha256"}
    assert record["data"]["examples"]["train"] == int(small(folder)[3])
    assert list(record["data"]["examples"]) == ["train", "validation", "test"]
    assert {"python", "torch", "processor", "device"} <= set(record["environment"])

    (row,) = record["runs"]
    assert list(row) == RUN_KEYS
    assert (row["seed"], row["epochs"]) == (0, 2) and row["seconds"] >= 0
    best = history(trained(folder))[row["best_epoch"] - 1]
    names = ["loss"] if folder in WRITERS + TRANSFORMERS + AUTOENCODERS else ["accuracy", "loss"]
    names = ["frechet_distance"] if folder in GAMES else names
    for name in names:
        assert row["validation"][name] == pytest.approx(float(best[f"validation_{name}"]))
        assert describe({name: row["test"][name]}) in result.out


@pytest.mark.parametrize("folder", TESTED)
def test_a_record_has_the_name_that_it_is_given(folder, trained, recorder, tmp_path):
    assert recorder(folder, trained(folder), "--config", "mine").code == 0
    (written,) = (tmp_path / folder / "results").glob("*.json")
    assert written.name == "mine.json" and json.loads(written.read_text())["config"] == "mine"


@pytest.mark.parametrize("name", ["../../x", "a/b", "compare-x", ".hidden", "a\\b"])
def test_a_record_of_a_name_that_no_table_reads_is_refused_at_once(
    name, trained, capsys, monkeypatch
):
    """Before the evaluation; and nothing is written outside of results/."""
    monkeypatch.setattr(script("MLP_Manual", "test"), "load_test", None)
    main = script("MLP_Manual", "test").main
    result = call(capsys, main, "--run-dir", trained("MLP_Manual", 0), "--record", "--config", name)
    assert_one_line(result, f"--config {name}", "not compare first")
    baseline = call(capsys, script("LSTM", "baseline").main, "--record", "--config", name)
    assert_one_line(baseline, f"--config {name}", "not compare first")


@pytest.mark.parametrize("folder", TESTED)
def test_recorded_command_repeats_the_recipe(folder, trained, recorder, tmp_path):
    recorder(folder, trained(folder))
    record = json.loads((tmp_path / folder / "results" / f"{small(folder)[1]}.json").read_text())
    python, path, *argv = shlex.split(record["command"])
    assert (python, path) == ("python", f"{folder}/train.py")
    module = script(folder)
    args = vars(cli.parse_training(module.make_parser(), module.RECIPES, tmp_path, argv))
    assert record["hyperparameters"].items() <= args.items()
    assert {"epochs", "batch_size", "lr", "subset", "schedule"} <= record["hyperparameters"].keys()
    assert not {"seed", "device", "run_dir", "data_dir"} & record["hyperparameters"].keys()


def test_records_of_seeds_are_sorted_and_a_seed_is_replaced(trained, recorder, tmp_path):
    results = tmp_path / "MLP_Manual" / "results"
    for seed in (2, 0, 2):
        recorder("MLP_Manual", trained("MLP_Manual", seed))
    rows = json.loads((results / "spirals.json").read_text())["runs"]
    assert [row["seed"] for row in rows] == [0, 2]
    assert rows[0]["test"] != rows[1]["test"]
    curves = (results / "spirals_curves.png").read_bytes()
    assert curves == (trained("MLP_Manual", 0) / "curves.png").read_bytes()  # the lowest seed's


def test_another_recipe_under_the_same_name_is_refused(trained, recorder, tmp_path):
    recorder("MLP_Manual", trained("MLP_Manual"))
    record = tmp_path / "MLP_Manual" / "results" / "spirals.json"
    before = record.read_text()
    argv = [*small("MLP"), "--epochs", 1, "--lr", 0.5, "--run-dir", tmp_path / "other"]
    script("MLP_Manual").main(list(map(str, argv)))
    result = recorder("MLP_Manual", tmp_path / "other")
    assert_one_line(result, record, "--config")
    assert record.read_text() == before

    result = recorder("MLP_Manual", tmp_path / "other", "--config", "spirals-fast")
    assert result.code == 0 and record.read_text() == before
    other = json.loads(record.with_name("spirals-fast.json").read_text())
    assert (other["dataset"], other["config"]) == ("spirals", "spirals-fast")


def test_unfinished_run_is_not_recorded(trained, recorder, tmp_path):
    run_dir = shutil.copytree(trained("MLP_Manual"), tmp_path / "run")
    config = json.loads((run_dir / "config.json").read_text())
    (run_dir / "config.json").write_text(json.dumps({**config, "epochs": 3}))
    assert_one_line(recorder("MLP_Manual", run_dir), "epoch 2 of 3", "--resume")
    assert list((tmp_path / "MLP_Manual" / "results").iterdir()) == []


@pytest.mark.parametrize("folder", ["ResNet", "VAE"])
def test_other_data_than_the_run_learned_is_not_recorded(folder, tmp_path, recorder):
    """As the record would hold their checksum. The test split by itself may be looked at."""
    photos = tmp_path / "photos"
    for split, name, shade in itertools.product(("train", "test"), "ab", range(0, 250, 25)):
        path = photos / split / name / f"{shade}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (shade, ord(name), 0)).save(path)
    flags = [*small(folder), "--dataset", "folder", "--data-dir", photos, "--run-dir"]
    script(folder).main([*map(str, [*flags, tmp_path / "run", "--epochs", 1, "--subset", 16])])
    Image.new("RGB", (32, 32), "white").save(photos / "train" / "a" / "0.png")
    refused = recorder(folder, tmp_path / "run")
    assert_one_line(refused, "a run on other content of train", "or train again")
    assert "test split of photos, 20 examples" in refused.out
    assert not list((tmp_path / folder / "results").glob("*.json"))


# ---- two clones, and another working directory ----


@pytest.fixture
def clone(tmp_path):
    """Another clone of the project's code, which is not the one that is installed."""
    for package in ("common", "MLP_Torch"):
        for path in [*(ROOT / package).rglob("*.py"), *(ROOT / package).glob("*.csv")]:
            if "runs" not in path.relative_to(ROOT).parts:
                copy = tmp_path / "clone" / path.relative_to(ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
    return tmp_path / "clone"


@pytest.mark.long
def test_a_script_started_by_its_path_runs_its_own_clone(clone, tmp_path):
    """Also where the installed clone is on the path, as pip's .pth puts it there."""
    script = clone / "MLP_Torch" / "train.py"
    (clone / "common" / "history.py").write_text(
        (clone / "common" / "history.py").read_text() + "\nprint('of the other clone')\n"
    )
    for cwd in (tmp_path, ROOT):
        result = finish(start(script, *small("MLP"), "--epochs", 1, cwd=cwd))
        assert result.code == 0 and "of the other clone" in result.out, result.err
    runs = [path.name for path in (clone / "MLP_Torch" / "runs").iterdir()]
    assert sorted(runs) == ["0001-spirals", "0002-spirals"]


@pytest.mark.long
def test_the_closing_hint_works_from_the_working_directory(clone, tmp_path):
    place = tmp_path / "a place"
    place.mkdir()
    script = clone / "MLP_Torch" / "train.py"
    train = [script, *small("MLP"), "--epochs", 1, "--run-dir", "my run"]
    trained = finish(start(*train, cwd=place, cold=True))
    assert (trained.code, trained.err) == (0, "") and len(history(place / "my run")) == 1
    python, name, *argv = shlex.split(trained.out.split("now try:")[1].splitlines()[0])
    assert (python, name) == ("python", os.path.join("..", "clone", "MLP_Torch", "test.py"))
    result = finish(start(name, *argv, cwd=place, cold=True))
    assert (result.code, result.err) == (0, "") and "accuracy" in result.out
    assert (place / "my run" / "confusion.png").is_file()
