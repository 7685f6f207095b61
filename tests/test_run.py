"""common/run.py through the training scripts: what a run leaves behind, and what it survives."""

import importlib
import itertools
import json
import math
import os
import shlex
import shutil
import signal
import sys

import pytest

from common import checkpoint, run
from common.data import ROOT, Split
from LSTM.dataset.texts import Texts
from tests.running import (
    AUTOENCODERS,
    CNNS,
    FOLDERS,
    GAMES,
    MLPS,
    READERS,
    TRANSFORMERS,
    WRITERS,
    Result,
    Stop,
    assert_ended_alike,
    assert_one_line,
    call,
    crash,
    few_shapes,
    finish,
    history,
    interrupt,
    kind,
    script,
    short_strings,
    small,
    start,
    wait_until,
)

FILES = ["best.safetensors", "config.json", "curves.png", "history.csv", "last.safetensors"]
COLUMNS = [
    "epoch", "dataset", "train_loss", "validation_loss", "validation_accuracy", "lr", "seconds",
]  # fmt: skip

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals")


@pytest.fixture(autouse=True)
def few_examples(monkeypatch):
    """In this process alone: one of its own sees them all."""
    few_shapes(monkeypatch)
    short_strings(monkeypatch)


@pytest.fixture
def no_pictures(monkeypatch):
    """Curves take longer to draw than these runs to train."""
    monkeypatch.setattr("common.plots.draw_curves", lambda path, history: None)
    monkeypatch.setattr("GAN.utils.plots.draw_players", lambda path, diary, title: None)


def train(folder: str, run_dir, *argv) -> None:
    script(folder).main([*small(folder), "--run-dir", str(run_dir), *map(str, argv)])


def resume(folder: str, run_dir, *argv) -> None:
    script(folder).main(["--resume", "--run-dir", str(run_dir), *map(str, argv)])


# ---- what a run leaves behind ----


@pytest.mark.pictures
@pytest.mark.smoke
@pytest.mark.parametrize("folder", FOLDERS)
def test_run_leaves_its_files(folder, tmp_path, capsys):
    path = tmp_path / "a" / "run"
    result = call(
        capsys, script(folder).main, *small(folder), "--epochs", 3, "--run-dir", path, "--seed", 5
    )
    assert (result.code, result.err) == (0, "")
    written, game = folder in WRITERS, folder in GAMES
    filmed = folder in AUTOENCODERS
    more = ["samples.txt"] * written + ["frames", "training.gif"] * (filmed or game)
    more += ["players.png"] * game
    assert sorted(file.name for file in path.iterdir()) == sorted([".lock", *FILES, *more])
    rows = history(path)
    translated = folder in TRANSFORMERS
    share = "validation_exact_match" if translated else "validation_accuracy"
    columns = [share if name == "validation_accuracy" else name for name in COLUMNS]
    columns = [name for name in columns if name != share or not (written or filmed)]
    if game:
        columns[columns.index("validation_loss")] = "validation_frechet_distance"
        columns.remove(share)
    if filmed:
        place = columns.index("validation_loss") + 1
        columns[place:place] = ["validation_reconstruction", "validation_kl"]
    assert [list(row) for row in rows] == [columns] * 3
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    seconds = [float(row["seconds"]) for row in rows]
    assert 0 < seconds[0] <= seconds[1] <= seconds[2]
    for row in rows:
        assert row["dataset"] == small(folder)[1]
        assert written or filmed or game or 0 <= float(row[share]) <= 1
        assert game or float(row["train_loss"]) > 0  # a critic's may have either sign
        assert float(row["validation_frechet_distance" if game else "validation_loss"]) > 0

    config = json.loads((path / "config.json").read_text())
    assert (config["epochs"], config["seed"], config["subset"]) == (3, 5, int(small(folder)[3]))
    assert (path / "curves.png").read_bytes().startswith(b"\x89PNG")
    last, best = (checkpoint.load(path / f"{name}.safetensors") for name in ("last", "best"))
    assert (last["epoch"], last["batch"]) == (3, 0)
    if game:
        scores = [-float(row["validation_frechet_distance"]) for row in rows]
    elif written or translated or filmed:
        scores = [-float(row["validation_loss"]) for row in rows]
    else:
        scores = [float(row["validation_accuracy"]) for row in rows]
    assert scores[best["epoch"] - 1] == max(scores)

    for said in ("parameters", small(folder)[1], "cpu", str(path), "epoch   3/3", "now try:"):
        assert said in result.out
    assert "test.py --run-dir" in result.out.splitlines()[-1]
    assert "\x1b" not in result.out and "\r" not in result.out  # no colours, no bar


@pytest.mark.parametrize("watched", [True, False])
def test_progress_bar_is_there_when_somebody_watches(watched, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: watched)
    main = script("MLP_Manual").main
    result = call(capsys, main, *small("MLP"), "--epochs", 1, "--run-dir", tmp_path / "run")
    assert ("step/s" in result.err) == watched


def test_new_runs_get_new_folders(tmp_path, monkeypatch, no_pictures):
    module = script("MLP_Manual")
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    for _ in range(2):
        module.main([*small("MLP"), "--epochs", "1"])
    runs = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert runs == ["0001-spirals", "0002-spirals"]

    module.main(["--resume", "--epochs", "2"])  # the latest
    assert [len(history(tmp_path / "runs" / name)) for name in runs] == [1, 2]


@pytest.mark.parametrize("folder", FOLDERS)
def test_used_folder_is_refused_without_resume(folder, tmp_path, capsys, no_pictures):
    train(folder, tmp_path / "run", "--epochs", 1)
    before = contents(tmp_path / "run")
    argv = [*small(folder), "--run-dir", tmp_path / "run"]
    assert_one_line(call(capsys, script(folder).main, *argv), tmp_path / "run", "--resume")
    assert contents(tmp_path / "run") == before and len(before) >= len(FILES) - 1


def contents(path) -> dict:
    """What lies in a folder and in those below it."""
    return {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_folder_that_holds_something_else_is_used(tmp_path, no_pictures):
    (tmp_path / "notes.txt").write_text("mine")
    train("MLP_Manual", tmp_path, "--epochs", 1)
    assert (tmp_path / "notes.txt").read_text() == "mine" and len(history(tmp_path)) == 1


def test_folder_that_cannot_be_made_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    argv = [*small("MLP"), "--run-dir", tmp_path / "file" / "run"]
    assert_one_line(call(capsys, script("MLP_Manual").main, *argv), "run folder")


@pytest.mark.parametrize("folder", [f for f in FOLDERS if f not in WRITERS + TRANSFORMERS])
def test_every_epoch_has_an_order_of_its_own(folder, tmp_path, monkeypatch, no_pictures):
    asked = []
    for split in (Split, Texts):

        def ask(self, batch_size, seed=0, epoch=0, skip=0, batches=split.batches):
            asked.append((batch_size, seed, epoch, skip))
            return batches(self, batch_size, seed, epoch, skip)

        monkeypatch.setattr(split, "batches", ask)
    train(folder, tmp_path / "run", "--epochs", 3, "--seed", 5)
    assert asked == [(int(small(folder)[5]), 5, epoch, 0) for epoch in range(3)]


EFFECTIVE = {  # each changes what is learned; --seed and the like too
    "": "--seed 1; --lr 0.005; --batch-size 8; --subset 60; --label-smoothing 0.3; "
    "--weight-decay 0.5; --schedule constant; --warmup 2; --clip 0.001",
    "MLP": "--dropout 0.5; --optimizer sgd; --hidden-sizes 8 8; --activation relu; "
    "--no-batch-norm; --loss mse; --input-dropout 0.5",
    "CNN": "--dropout 0.5; --optimizer sgd; --channels 4 4; --shift 2; --rotation 30; --zoom 0.5; "
    "--flip; --hidden-size 9",
    "ResNet": "--optimizer adamw; --model resnet20; --ema 0.5; --no-flip-test; --freeze; "
    "--precision bfloat16; --crop 2; --flip; --flip --alternate-flip; --shift-test; --colour 0.3; "
    "--cutout 8; --mixup 0.9; --cutmix 0.9; --hardest 0.5",
    "ViT": "--optimizer nesterov; --model tiny; --ema 0.5; --flip-test; --freeze; "
    "--precision bfloat16; --crop 2; --flip; --flip --alternate-flip; --shift-test; --colour 0.3; "
    "--cutout 8; --mixup 0.9; --cutmix 0.9; "
    "--patch-size 8; --stem patch; --pooling mean; --positions sincos; --dropout 0.3; "
    "--drop-path 0.3; --layer-scale 0",
    "LSTM": "--cell gru; --embed-dim 9; --hidden-size 9; --num-layers 2; --no-bidirectional; "
    "--pooling mean; --dropout 0.3; --word-dropout 0.5; --embedding-dropout 0.3; --max-length 5; "
    "--adversarial 0.3; --ngrams 2; --vocabulary-size 20; --min-freq 20; --optimizer nesterov; "
    "--ema 0.5; --precision bfloat16",
    "RNN": "--dropout 0.5; --optimizer sgd; --window 16; --cell gru; --cell rnn; --embed-dim 5; "
    "--hidden-size 9; --num-layers 2; --weight-dropout 0.5",
    "Transformer": "--optimizer adamw --weight-decay 0.3; --beta2 0.5; --embed-dim 6; "
    "--num-heads 1; --num-layers 2; --feedforward-dim 9; --dropout 0.3; --activation gelu; "
    "--no-norm-first; --positions learned; --dataset dates --tokenizer word --warmup 0; "
    "--vocabulary-size 20; "
    "--max-length 10; --schedule inverse-sqrt; --dataset copy; --ema 0.5",
    "VAE": "--model ae; --model iwae; --model iwae --samples 3; --model iwae --samples 3 --dreg; "
    "--model cvae; --beta 3; --beta-warmup 1; --samples 2; --latent-dim 3; --likelihood grey; "
    "--likelihood bernoulli; --network conv; --hidden-sizes 9; --activation tanh; --batch-norm; "
    "--ema 0.5; --precision bfloat16",
    "GAN": "--model gan; --loss non-saturating; --norm spectral; --slope 2; --penalty 3; "
    "--critic-steps 2; --ema 0; --betas 0.1 0.9; --latent-dim 3; --clusters 3; --hidden-sizes 9; "
    "--precision bfloat16",
}
PLAIN = {
    "MLP": ["--epochs", 1],
    "CNN": ["--epochs", 1, "--dropout", 0, "--shift", 0, "--rotation", 0, "--zoom", 0, "--no-flip"],
    "ResNet": ["--epochs", 1, "--crop", 0, "--no-flip"],
    "ViT": ["--epochs", 1, "--crop", 0, "--no-flip"],
    "LSTM": ["--epochs", 1],
    "RNN": ["--epochs", 1],
    "Transformer": ["--epochs", 1],
    "VAE": ["--epochs", 1],
    "GAN": ["--epochs", 1, "--critic-steps", 1],
}


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_flag_has_an_effect_and_the_same_one_each_time(folder, tmp_path, no_pictures):
    flags, losses = [*EFFECTIVE[""].split("; "), *EFFECTIVE[kind(folder)].split("; ")], {}
    if folder in TRANSFORMERS:  # 8 tokens would be less than a sentence has
        flags[flags.index("--batch-size 8")] = "--batch-size 80"
    if folder in AUTOENCODERS:  # they have neither
        flags = [f for f in flags if f.split()[0] not in ("--label-smoothing", "--weight-decay")]
    if folder in GAMES:
        unknown = ("--label-smoothing", "--weight-decay", "--clip")
        flags = [f for f in flags if f.split()[0] not in unknown]
    measured = "validation_frechet_distance" if folder in GAMES else "validation_loss"
    for flag in ["", "", *flags]:
        path = tmp_path / str(len(list(tmp_path.iterdir())))
        train(folder, path, *PLAIN[kind(folder)], *flag.split())
        losses.setdefault(history(path)[0][measured], set()).add(flag)
    assert [flags for flags in losses.values() if len(flags) > 1] == []
    assert len(losses) == 1 + len(flags)


@pytest.mark.parametrize("folder", ["ResNet", "ViT"])
def test_an_image_that_alternates_shows_its_other_side_in_the_next_epoch(
    folder, tmp_path, monkeypatch, no_pictures
):
    augmentation, shown = importlib.import_module(f"{folder}.utils.augmentation"), []
    change = augmentation.Augmentation.__call__

    def note(self, images, labels, turns):
        pixels = [image.numpy().tobytes() for image in images]
        shown.extend(zip(pixels, turns.tolist(), strict=True))
        return change(self, images, labels, turns)

    monkeypatch.setattr(augmentation.Augmentation, "__call__", note)
    train(folder, tmp_path / "run", "--flip", "--alternate-flip", "--epochs", 1)
    first, shown[:] = dict(shown), []
    resume(folder, tmp_path / "run", "--epochs", 2)
    second = dict(shown)
    both = first.keys() & second.keys()
    assert len(both) > 20 and all(second[image] == first[image] + 1 for image in both)
    assert set(first.values()) == {0, 1}


@pytest.mark.parametrize("folder", MLPS)
def test_early_stopping(folder, tmp_path, capsys, no_pictures):
    path = tmp_path / "run"
    # nothing is learned: the first epoch stays the best
    flags = ["--lr", 1e-30, "--optimizer", "sgd", "--no-batch-norm", "--patience", 2]
    train(folder, path, *flags, "--epochs", 9)
    assert len(history(path)) == 3
    assert checkpoint.load(path / "best.safetensors")["epoch"] == 1

    resume(folder, path)
    assert len(history(path)) == 3, "a resumed run forgets that it stopped"


@pytest.mark.parametrize("folder", [f for f in FOLDERS if f not in AUTOENCODERS + GAMES])
def test_every_folder_stops_when_its_patience_ends(folder, tmp_path, monkeypatch, no_pictures):
    asked = []

    def stop(self, patience):
        asked.append(patience)
        return len(self.history) == 1

    monkeypatch.setattr("common.run.Run.should_stop", stop)
    train(folder, tmp_path / "run", "--patience", 7, "--epochs", 3)
    assert asked == [7, 7] and len(history(tmp_path / "run")) == 1


def test_patience_counts_from_the_best_epoch(tmp_path, no_pictures):
    path = tmp_path / "run"
    train("MLP_Manual", path, "--patience", 1, "--epochs", 20)
    rows = history(path)
    scores = [(float(r["validation_accuracy"]), -float(r["validation_loss"])) for r in rows]
    ends = [n for n in range(1, len(rows)) if scores[n] <= max(scores[:n])]
    assert ends == [len(rows) - 1] or (not ends and len(rows) == 20)


# ---- resuming ----


def test_resume_without_a_run_is_one_line(tmp_path, capsys, monkeypatch):
    module = script("MLP_Manual")
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    assert_one_line(call(capsys, module.main, "--resume"), tmp_path / "runs")
    result = call(capsys, module.main, "--resume", "--run-dir", tmp_path / "none")
    assert_one_line(result, tmp_path / "none")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of each folder: a function folder -> a copy of it below a path."""
    originals = {}

    def copy(folder: str, path):
        if folder not in originals:
            originals[folder] = tmp_path_factory.mktemp(folder) / "run"
            train(folder, originals[folder], "--epochs", 2, "--schedule", "constant")
        return shutil.copytree(originals[folder], path / "run")

    return copy


@pytest.mark.parametrize(
    "flag", ["--lr 0.5", "--seed 7", "--dataset mnist", "--hidden-sizes 9", "--no-batch-norm"]
)
def test_flag_that_contradicts_the_run_is_refused(flag, finished, tmp_path, capsys):
    path = finished("MLP_Manual", tmp_path)
    before = (path / "config.json").read_text()
    argv = ["--resume", "--run-dir", path, *flag.split(), "--epochs", 9]
    name = flag.split()[0].replace("no-", "")
    assert_one_line(call(capsys, script("MLP_Manual").main, *argv), name, "contradicts")
    assert (path / "config.json").read_text() == before and len(history(path)) == 2


@pytest.mark.parametrize("folder", FOLDERS)
def test_larger_epochs_go_on(folder, finished, tmp_path, no_pictures):
    path = finished(folder, tmp_path)
    # flags that agree with the run may be repeated
    resume(folder, path, *small(folder), "--epochs", 4, "--device", "cpu")
    train(folder, tmp_path / "whole", "--epochs", 4, "--schedule", "constant")
    assert_ended_alike(path, tmp_path / "whole")
    assert json.loads((path / "config.json").read_text())["epochs"] == 4


@pytest.mark.parametrize("folder", FOLDERS)
def test_fewer_epochs_than_a_run_has_behind_it_are_one_line(folder, finished, tmp_path, capsys):
    path = finished(folder, tmp_path)
    before = (path / "config.json").read_text()
    result = call(capsys, script(folder).main, "--resume", "--run-dir", path, "--epochs", 1)
    assert_one_line(result, "--epochs 1", path)
    assert (path / "config.json").read_text() == before


@pytest.mark.parametrize("folder", FOLDERS)
def test_resuming_a_finished_run_changes_nothing(folder, finished, tmp_path, capsys):
    path = finished(folder, tmp_path)
    result = call(capsys, script(folder).main, "--resume", "--run-dir", path)
    assert result.code == 0 and "complete after 2 epochs" in result.out
    assert_ended_alike(path, finished(folder, tmp_path / "again"))


STOPPABLE = {  # what has a state of its own: dropout, augmentation, averages, schedules
    "MLP": ["--dropout", 0.3, "--optimizer", "adamw", "--warmup", 5, "--clip", 1],
    "CNN": ["--dropout", 0.3, "--shift", 2, "--rotation", 10, "--zoom", 0.1, "--flip"],
}
STEPS = {"MLP": 8, "CNN": 4}  # of an epoch of the small runs


@pytest.mark.parametrize("where", ["first step", "amid an epoch", "last step", "next epoch"])
@pytest.mark.parametrize("how", [crash, interrupt])
@pytest.mark.parametrize("folder", [*MLPS, *CNNS])
def test_stopped_anywhere_and_resumed_is_as_never_stopped(
    folder, how, where, tmp_path, monkeypatch, no_pictures
):
    flags = [*STOPPABLE[kind(folder)], "--epochs", 2]
    train(folder, tmp_path / "whole", *flags)

    steps = STEPS[kind(folder)]
    step = {"first step": 1, "amid an epoch": 3, "last step": steps, "next epoch": steps + 1}[where]
    with monkeypatch.context() as patch:
        how(patch, step)
        with pytest.raises((Stop, KeyboardInterrupt)):
            train(folder, tmp_path / "run", *flags)
    assert checkpoint.load(tmp_path / "run" / "last.safetensors")["step"] == step
    resume(folder, tmp_path / "run")
    assert_ended_alike(tmp_path / "run", tmp_path / "whole")


def test_mixed_precision_goes_on_exactly(tmp_path, monkeypatch, no_pictures):
    flags = [*STOPPABLE["CNN"], "--epochs", 2, "--precision", "bfloat16"]
    train("CNN_Torch", tmp_path / "whole", *flags)
    with monkeypatch.context() as patch, pytest.raises(Stop):
        crash(patch, 6)
        train("CNN_Torch", tmp_path / "run", *flags)
    resume("CNN_Torch", tmp_path / "run")
    assert_ended_alike(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize("optimizer", ["sgd", "nesterov", "adagrad", "rmsprop"])
@pytest.mark.parametrize("schedule", ["step", "cosine"])
@pytest.mark.parametrize("folder", MLPS)
def test_every_optimiser_and_schedule_goes_on_exactly(
    folder, schedule, optimizer, tmp_path, monkeypatch, no_pictures
):
    flags = ["--optimizer", optimizer, "--schedule", schedule, "--epochs", 2, "--lr", 0.01]
    train(folder, tmp_path / "whole", *flags)
    with monkeypatch.context() as patch, pytest.raises(Stop):
        crash(patch, 5)
        train(folder, tmp_path / "run", *flags)
    resume(folder, tmp_path / "run")
    assert_ended_alike(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize("writes", range(1, 8))
def test_stopped_between_two_files_and_resumed_is_as_never_stopped(
    writes, tmp_path, monkeypatch, no_pictures
):
    """config.json and the first checkpoint; then best, last and history.csv of each epoch."""
    train("MLP_Manual", tmp_path / "whole", "--epochs", 2)
    path, written, write = tmp_path / "run", [], checkpoint.write_atomically

    def write_and_stop(target, content):
        write(target, content)
        written.append(target.name)
        if len(written) == writes:
            raise Stop

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(checkpoint, "write_atomically", write_and_stop)
        train("MLP_Manual", path, "--epochs", 2)
    if written == ["config.json"]:  # nothing to go on with: the folder is free to start in
        train("MLP_Manual", path, "--epochs", 2)
    else:
        resume("MLP_Manual", path)
    assert_ended_alike(path, tmp_path / "whole")


def test_second_interruption_does_not_wait(tmp_path, monkeypatch, capsys):
    log_step = run.Run.log_step

    def log(self, *args, **kwargs):
        if self.step == 2:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        log_step(self, *args, **kwargs)

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(run.Run, "log_step", log)
    argv = [*small("MLP"), "--run-dir", tmp_path / "run"]
    result = call(capsys, script("MLP_Manual").main, *argv)
    assert (result.code, result.err) == (130, "stopped without saving\n")
    assert checkpoint.load(tmp_path / "run" / "last.safetensors")["step"] == 0
    assert signal.getsignal(signal.SIGINT) is before


# ---- real processes that are killed ----

# epochs short enough to be over soon, and so many that a kill never comes too late
LONG = {
    "MLP_Manual": ["--epochs", 40, "--dropout", 0.2],
    "MLP_Torch": ["--epochs", 40, "--dropout", 0.2],
    "CNN_Manual": ["--epochs", 15, "--dropout", 0.2],
}
ALL_SHAPES = dict(script("CNN_Manual", "dataset.shapes").SIZES_SEEDS)


def kill(process) -> Result:
    process.kill()
    result = finish(process)
    assert result.code == -signal.SIGKILL
    return result


@pytest.mark.parametrize("folder", LONG)
@pytest.mark.long
def test_killed_between_epochs_and_resumed_is_as_never_killed(
    folder, tmp_path, monkeypatch, no_pictures
):
    monkeypatch.setattr("CNN_Manual.dataset.shapes.SIZES_SEEDS", ALL_SHAPES)
    path = tmp_path / "run"
    argv = [*small(folder), *LONG[folder]]
    process = start("-m", f"{folder}.train", *argv, "--run-dir", path)
    wait_until(lambda: len(history(path)) >= 3, process)
    kill(process)
    epochs = LONG[folder][1]
    assert 3 <= len(history(path)) < epochs

    if folder == "MLP_Manual":  # a process of its own goes on, as a user's would
        result = finish(start("-m", f"{folder}.train", "--resume", "--run-dir", path))
        assert (result.code, result.err) == (0, "")
        assert "resumed  in epoch" in result.out
        assert "\x1b" not in result.out and "\r" not in result.out
    else:
        resume(folder, path)
    assert [int(row["epoch"]) for row in history(path)] == list(range(1, epochs + 1))
    train(folder, tmp_path / "whole", *LONG[folder])
    assert_ended_alike(path, tmp_path / "whole")


@pytest.mark.parametrize("folder", TRANSFORMERS)
@pytest.mark.long
def test_killed_and_resumed_by_other_processes_the_subwords_are_cut_alike(folder, tmp_path):
    flags = ["--epochs", 4, "--tokenizer", "subword", "--vocabulary-size", 40,
             "--subword-dropout", 0.3]  # fmt: skip
    command = ["-m", f"{folder}.train", *small(folder), *flags, "--run-dir"]
    process = start(*command, tmp_path / "run", cold=True)  # texts have other hashes in it
    wait_until(lambda: len(history(tmp_path / "run")) >= 1, process)
    kill(process)
    assert len(history(tmp_path / "run")) < 4
    resumed = ["-m", f"{folder}.train", "--resume", "--run-dir", tmp_path / "run"]
    for arguments in (resumed, [*command, tmp_path / "whole"]):
        result = finish(start(*arguments))
        assert (result.code, result.err) == (0, "")
    assert_ended_alike(tmp_path / "run", tmp_path / "whole")


SAVE_EVERY_STEP = """
import sys
import common.run
from common import cli
from MLP_Manual.train import main
common.run.CHECKPOINT_SECONDS = 0
cli.entry(lambda: main(sys.argv[1:]))
"""


@pytest.mark.long
def test_killed_within_an_epoch_and_resumed_is_as_never_killed(tmp_path, no_pictures):
    path = tmp_path / "run"
    flags = ["--subset", 2_000, "--batch-size", 2, "--dropout", 0.2, "--epochs", 1]
    process = start("-c", SAVE_EVERY_STEP, *small("MLP"), *flags, "--run-dir", path)
    last = path / "last.safetensors"
    # read again and again while it is replaced: each time whole
    wait_until(lambda: last.is_file() and checkpoint.load(last)["step"] >= 50, process)
    kill(process)
    assert 50 <= checkpoint.load(last)["batch"] < 1_000 and history(path) == []

    resume("MLP_Manual", path)
    train("MLP_Manual", tmp_path / "whole", *flags)
    assert_ended_alike(path, tmp_path / "whole")


@pytest.mark.long
def test_a_second_start_or_resume_is_refused_until_the_first_is_killed(tmp_path, no_pictures):
    path = tmp_path / "run"
    flags = [*small("MLP"), *LONG["MLP_Manual"]]
    process = start("-m", "MLP_Manual.train", *flags, "--run-dir", path)
    wait_until(lambda: len(history(path)) >= 1, process)
    seconds = [
        start("-m", "MLP_Manual.train", *flags, "--run-dir", path, "--seed", 7),
        start("-m", "MLP_Manual.train", "--resume", "--run-dir", path),
    ]
    process.send_signal(signal.SIGSTOP)  # so that it does not end before them
    new, resumed = map(finish, seconds)
    assert_one_line(new, path, "holds a run already")
    assert_one_line(resumed, path, "in use", "another process")
    kill(process)
    assert json.loads((path / "config.json").read_text())["seed"] == 0

    resume("MLP_Manual", path)  # at once
    train("MLP_Manual", tmp_path / "whole", *LONG["MLP_Manual"])
    assert_ended_alike(path, tmp_path / "whole")
    assert [file.name for file in path.iterdir() if file.name[0] == "."] == [".lock"]


AT_ONCE = """
import sys
from pathlib import Path
from common import cli, folders
from MLP_Manual.train import main
place, new_run = Path(sys.argv[1]), folders.new_run
def together(*args):
    path = new_run(*args)
    (place / sys.argv[2]).touch()
    while len(list(place.glob("ready-*"))) < 2:
        pass
    return path
folders.new_run = together
cli.entry(lambda: main(sys.argv[3:]))
"""


@pytest.mark.long
def test_of_two_starts_at_once_one_runs_and_one_is_refused(tmp_path):
    path, flags = tmp_path / "run", [*small("MLP"), "--epochs", 2]
    processes = {
        seed: start("-c", AT_ONCE, tmp_path, f"ready-{seed}", *flags, "--seed", seed,
                    "--run-dir", path)
        for seed in (1, 2)
    }  # fmt: skip
    results = {seed: finish(process) for seed, process in processes.items()}
    (winner,) = [seed for seed, result in results.items() if result.code == 0]
    assert_one_line(results[3 - winner], path)
    assert json.loads((path / "config.json").read_text())["seed"] == winner
    for name in ("last", "best"):
        assert checkpoint.load(path / f"{name}.safetensors")["flags"]["seed"] == winner
    train("MLP_Manual", tmp_path / "alone", "--epochs", 2, "--seed", winner)
    assert_ended_alike(path, tmp_path / "alone")
    assert sorted(file.name for file in path.iterdir()) == [".lock", *FILES]


def test_a_folder_is_free_again_after_an_error(tmp_path, capsys, no_pictures):
    path = tmp_path / "run"
    train("MLP_Manual", path, "--epochs", 2)
    result = call(capsys, script("MLP_Manual").main, "--resume", "--run-dir", path, "--epochs", 1)
    assert_one_line(result, "--epochs 1")
    resume("MLP_Manual", path, "--epochs", 3)
    assert len(history(path)) == 3


def test_what_a_killed_process_was_writing_is_removed_at_the_next_start(tmp_path, no_pictures):
    path = tmp_path / "run"
    train("MLP_Manual", path, "--epochs", 1)
    (path / "frames").mkdir()
    left = [path / ".last.safetensors.0123456789abcdef.part",
            path / "frames" / ".1.png.0123456789abcdef.part"]  # fmt: skip
    mine = [path / ".film.part", path / "x.0123456789abcdef.part"]
    for file in [*left, *mine]:
        file.write_text("")
    resume("MLP_Manual", path)
    assert not any(file.exists() for file in left) and all(file.exists() for file in mine)


@pytest.mark.long
def test_killed_before_its_first_epoch_ended_starts_again(tmp_path, no_pictures):
    path = tmp_path / "run"
    flags = ["--subset", 2_000, "--batch-size", 2, "--epochs", 1]
    process = start("-m", "MLP_Manual.train", *small("MLP"), *flags, "--run-dir", path)
    wait_until((path / "last.safetensors").is_file, process)
    kill(process)
    assert checkpoint.load(path / "last.safetensors")["step"] == 0 and history(path) == []

    resume("MLP_Manual", path)
    train("MLP_Manual", tmp_path / "whole", *flags)
    assert_ended_alike(path, tmp_path / "whole")


@pytest.mark.long
def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path, no_pictures):
    path = tmp_path / "a run"  # a space, as people's folders have
    process = start("-m", "MLP_Manual.train", *small("MLP"), *LONG["MLP_Manual"], "--run-dir", path)
    wait_until(lambda: len(history(path)) >= 2, process)
    process.send_signal(signal.SIGINT)
    result = finish(process)
    assert result.code == 130
    (line,) = result.err.splitlines()
    assert "\x1b" not in result.out and "\r" not in result.out
    assert f"stopped after step {checkpoint.load(path / 'last.safetensors')['step']};" in line

    python, name, *argv = shlex.split(line.split("go on with: ")[1])
    assert python == "python" and (ROOT / name).samefile(script("MLP_Manual").__file__)
    script("MLP_Manual").main(argv)
    train("MLP_Manual", tmp_path / "whole", *LONG["MLP_Manual"])
    assert_ended_alike(path, tmp_path / "whole")


def test_ctrl_c_just_before_the_checkpoint_stops_after_the_next_step(
    tmp_path, capsys, monkeypatch, no_pictures
):
    isfinite, sent = math.isfinite, []

    def interrupted(value):  # called after log_step has looked for Ctrl-C, before it saves
        if not sent:
            sent.append(os.kill(os.getpid(), signal.SIGINT))
        return isfinite(value)

    monkeypatch.setattr(math, "isfinite", interrupted)
    path = tmp_path / "run"
    result = call(capsys, script("MLP_Manual").main, *small("MLP"), "--run-dir", path)
    assert result.code == 130 and "stopped after step 2;" in result.err
    assert checkpoint.load(path / "last.safetensors")["step"] == 2


@pytest.mark.long
def test_full_disk_is_one_line_and_leaves_the_checkpoint(tmp_path):
    resource = pytest.importorskip("resource")
    if not hasattr(resource, "prlimit"):
        pytest.skip("the limits of another process cannot be set here")
    path = tmp_path / "run"
    argv = [*small("MLP"), "--epochs", 10_000, "--schedule", "constant"]
    process = start("-m", "MLP_Manual.train", *argv, "--run-dir", path)
    wait_until(lambda: len(history(path)) >= 2, process)
    resource.prlimit(
        process.pid, resource.RLIMIT_FSIZE, (1_000, 1_000)
    )  # no larger file from now on
    result = finish(process)
    assert_one_line(result, "cannot write", path, "stays")
    assert [file.name for file in path.iterdir() if file.name[0] == "."] == [".lock"]
    state = checkpoint.load(path / "last.safetensors")
    assert state["epoch"] >= 2
    checkpoint.load(path / "best.safetensors")

    # with room again, the run goes on from there
    epochs = state["epoch"] + 1
    resume("MLP_Manual", path, "--epochs", epochs)
    assert len(history(path)) == epochs


# ---- what goes wrong ----

EXPLOSIVE = {
    "MLP": ["--optimizer", "sgd", "--no-batch-norm", "--activation", "relu"],
    "CNN": ["--optimizer", "sgd"],
    "ResNet": ["--optimizer", "nesterov"],
    "ViT": ["--optimizer", "nesterov", "--clip", 0, "--layer-scale", 0],
    "LSTM": ["--optimizer", "nesterov", "--clip", 0],
    "RNN": ["--optimizer", "sgd", "--clip", 0, "--weight-decay", 1e30],  # its units only saturate
    "Transformer": ["--clip", 0],
    "VAE": [],
    "GAN": ["--critic-steps", 1],
}


@pytest.mark.smoke
@pytest.mark.parametrize("folder", FOLDERS)
def test_loss_that_is_not_finite_stops_the_run(folder, tmp_path, capsys):
    path = tmp_path / "run"
    flags = ["--lr", 1e30, "--schedule", "constant", *EXPLOSIVE[kind(folder)]]
    argv = [*small(folder), *flags, "--run-dir", path]
    result = call(capsys, script(folder).main, *argv)
    assert_one_line(result, "step ", "learning rate 1e+30", "largest gradient", path)
    state = checkpoint.load(path / "last.safetensors")
    assert all(tensor.isfinite().all() for tensor in state["model"].values())
    assert history(path) == [] and not (path / "best.safetensors").exists()


@pytest.mark.parametrize("folder", FOLDERS)
def test_weights_that_blow_up_in_an_epochs_last_step_are_not_kept(folder, tmp_path, capsys):
    """The training loss was finite: only the validation loss tells."""
    path = tmp_path / "run"
    flags = ["--lr", 1e30, "--schedule", "constant", "--batch-size", 1_000]
    flags += [*EXPLOSIVE[kind(folder)], *(["--hidden-sizes", 8, 8, 8] if folder in MLPS else [])]
    flags += ["--lr", 1e38] if folder in READERS else []  # what a cell gives is bounded
    flags += ["--batch-size", 31] if folder in WRITERS else []  # the text is no longer than that
    result = call(capsys, script(folder).main, *small(folder), *flags, "--run-dir", path)
    assert_one_line(result, "step 1 ", path)
    state = checkpoint.load(path / "last.safetensors")
    assert all(tensor.isfinite().all() for tensor in state["model"].values())
    assert state["step"] == 0 and history(path) == []


def test_without_a_validation_split_the_weights_tell(tmp_path, capsys, no_pictures):
    path = tmp_path / "run"
    (tmp_path / "input.txt").write_text("abcd efgh\n" * 61)
    flags = ["--dataset", "text", "--data-dir", tmp_path, "--refit", "--lr", 3e38, "--epochs", 1]
    flags += ["--window", 32, "--batch-size", 16, "--schedule", "constant", "--hidden-size", 4]
    flags += ["--optimizer", "sgd", "--clip", 0, "--weight-decay", 1e4, "--sample-length", 0]
    result = call(capsys, script("RNN_Manual").main, *flags, "--run-dir", path)
    assert_one_line(result, "step 1 ", path)
    state = checkpoint.load(path / "last.safetensors")
    assert all(tensor.isfinite().all() for tensor in state["model"].values())
    assert state["step"] == 0 and not (path / "best.safetensors").exists()


@pytest.mark.parametrize("how", ["empty", "cut short", "text"])
def test_damaged_checkpoint_is_one_line(how, finished, tmp_path, capsys):
    path = finished("MLP_Manual", tmp_path)
    last = path / "last.safetensors"
    content = {
        "empty": b"", "cut short": last.read_bytes()[:10_000], "text": b"no checkpoint",
    }[how]  # fmt: skip
    last.write_bytes(content)
    argv = ["--resume", "--run-dir", path, "--epochs", 3]
    assert_one_line(call(capsys, script("MLP_Manual").main, *argv), last, "damaged")
    assert last.read_bytes() == content and len(history(path)) == 2


@pytest.mark.parametrize(
    "what, flags", [("network", ["--hidden-sizes", 9]), ("optimiser", ["--optimizer", "momentum"])]
)
@pytest.mark.parametrize("folder", MLPS)
def test_checkpoint_of_another_network_or_optimiser_is_one_line(
    folder, what, flags, finished, tmp_path, capsys
):
    path = finished(folder, tmp_path)
    train(folder, tmp_path / "other", *flags, "--epochs", 1)
    last = shutil.copy(tmp_path / "other" / "last.safetensors", path)
    argv = ["--resume", "--run-dir", path, "--epochs", 3]
    changed = flags[0].strip("-").replace("-", "_")
    assert_one_line(call(capsys, script(folder).main, *argv), path / "config.json", changed)
    state = checkpoint.load(path / "last.safetensors")
    state.pop("flags")  # as in early runs
    checkpoint.save(path / "last.safetensors", state)
    assert_one_line(call(capsys, script(folder).main, *argv), last, f"of another {what}")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"lr": 1}'])
def test_damaged_config_is_one_line(text, finished, tmp_path, capsys):
    path = finished("MLP_Manual", tmp_path)
    (path / "config.json").write_text(text)
    result = call(capsys, script("MLP_Manual").main, "--resume", "--run-dir", path)
    assert_one_line(result, path / "config.json")


def test_no_step_is_lost_or_repeated_over_many_stops(tmp_path, monkeypatch, no_pictures):
    train("MLP_Manual", tmp_path / "whole", "--epochs", 2, "--dropout", 0.3)
    path = tmp_path / "run"
    for step in itertools.count(1):
        with monkeypatch.context() as patch:
            crash(patch, step)
            try:
                if step == 1:
                    train("MLP_Manual", path, "--epochs", 2, "--dropout", 0.3)
                else:
                    resume("MLP_Manual", path)
                break
            except Stop:
                continue
    assert step == 2 * STEPS["MLP"] + 1
    assert_ended_alike(path, tmp_path / "whole")
