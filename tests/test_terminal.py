"""Machines and terminals that people have: narrow encodings, closed and full streams, a notebook's
backend, Ctrl-C at any moment; and what scripts print and draw."""

import ast
import errno
import io
import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from matplotlib.text import Text

from common import checkpoint, cli, console, history, plots
from common.data import ROOT
from MLP_Manual.train import evaluate
from ResNet.utils.overlays import draw_overlays
from tests.conftest import user_error
from tests.running import (
    FOLDERS,
    MLPS,
    TRANSFORMERS,
    WRITERS,
    Result,
    assert_one_line,
    call,
    environment,
    few_shapes,
    finish,
    modules,
    script,
    small,
    start,
    wait_until,
)

SCRIPTS = sorted(
    path.relative_to(ROOT)
    for folder in FOLDERS
    for path in (ROOT / folder).glob("*.py")
    if "cli.entry(main)" in path.read_text(encoding="utf-8")
)
ODD = r"a$x$ $$ \frac{ %s"
DIGITS = [str(n) for n in range(10)]


def run(*command, **options) -> Result:
    """A script in a process, its output as bytes."""
    return finish(start(*command, text=False, **options))


# ---- encodings ----


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
@pytest.mark.parametrize("path", SCRIPTS, ids=str)
def test_help_is_printed_in_any_encoding(path, encoding, monkeypatch):
    module = script(path.parts[0], path.stem)
    output = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr("sys.stdout", output)
    with pytest.raises(SystemExit) as stopped:
        cli.entry(lambda: module.main(["--help"]))
    text = output.buffer.getvalue().decode(encoding)
    assert not stopped.value.code and "--help" in text


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
@pytest.mark.parametrize("folder", ["GAN", "LSTM"])
@pytest.mark.long
def test_scripts_work_in_any_encoding(folder, encoding, tmp_path, monkeypatch):
    """GAN prints a Fréchet distance; an argument of other encodings reaches a process alone."""
    few_shapes(monkeypatch)
    place, printed = ["--run-dir", tmp_path / "run"], {}
    scripts = {"train": [*small(folder), "--epochs", 1], "test": []}
    for name, argv in (scripts | ({"generate": []} if folder == "GAN" else {})).items():
        streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
        with monkeypatch.context() as patch:
            patch.setattr("sys.stdout", streams[0])
            patch.setattr("sys.stderr", streams[1])
            cli.entry(partial(script(folder, name).main, [*map(str, [*argv, *place])]))
        printed[name], errors = (stream.buffer.getvalue() for stream in streams)
        assert errors == b""
    if folder == "GAN":
        shown = {"ascii": rb"Fr\xe9chet", "cp1252": "Fréchet".encode("cp1252")}[encoding]
        assert shown in printed["test"]
    else:
        env = {"PYTHONIOENCODING": encoding}
        result = run("LSTM/predict.py", *place, "日本 caf\udce9 good", more=env)
        assert (result.code, result.err) == (0, b"")


# ---- streams that are closed or full ----


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
@pytest.mark.parametrize("argv", [["--help"], [*small("MLP"), "--epochs", 1]], ids=["help", "run"])
@pytest.mark.long
def test_full_output_is_one_line(argv, tmp_path):
    with open("/dev/full", "w") as full:
        place = ["--run-dir", tmp_path / "run"]
        result = run("MLP_Manual/train.py", *argv, *place, stdout=full)
        assert result.code == 2
        assert result.err.decode() == (
            f"error: the output cannot be written ({os.strerror(errno.ENOSPC)})\n"
        )


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_errors_that_cannot_be_written_either_end_alike():
    with open("/dev/full", "w") as full:
        both = run("MLP_Manual/train.py", "--epochs", -1, stdout=full, stderr=full, cold=True)
        assert both.code == 2


@pytest.mark.skipif(os.name == "nt", reason="of POSIX shells")
@pytest.mark.parametrize("closed", [0, 1, 2])
@pytest.mark.long
def test_closed_streams_are_empty_ones(closed, tmp_path):
    argv = [*map(str, small("MLP")), "--epochs", "1", "--run-dir", str(tmp_path / "run")]
    command = f'"$0" MLP_Manual/train.py "$@" {closed}{"<" if closed == 0 else ">"}&-'
    result = subprocess.run(
        ["sh", "-c", command, sys.executable, *argv], cwd=ROOT, env=environment(),
        capture_output=True, timeout=120,
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (0, b"")
    assert (tmp_path / "run" / "curves.png").is_file()


def test_a_closed_input_has_no_words(tmp_path, capsys, monkeypatch):
    argv = [*small("LSTM"), "--epochs", 1, "--run-dir", tmp_path / "run"]
    assert call(capsys, script("LSTM").main, *argv).code == 0
    monkeypatch.setattr("sys.stdin", None)
    ask = script("LSTM", "predict").main
    assert_one_line(call(capsys, ask, "--run-dir", tmp_path / "run"), "no word")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.ENAMETOOLONG])
def test_an_error_of_a_file_is_one_line_that_names_it(number, capsys):
    def main(argv):
        raise OSError(number, os.strerror(number), "a\nfile")

    assert_one_line(call(capsys, main), r"'a\nfile'", os.strerror(number))


def test_an_error_of_the_system_that_is_no_files_is_not_hidden():
    def main():
        raise OSError(errno.EINVAL, "invalid")

    with pytest.raises(OSError):
        cli.entry(main)


# ---- Ctrl-C while a script is imported ----


@pytest.mark.parametrize("path", SCRIPTS, ids=str)
def test_ctrl_c_is_taken_before_anything_slow_is_imported(path):
    """Only modules of Python's own come before the line that takes the traceback away."""
    for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body:
        if ast.unparse(node) == "if not __package__:\n    import start":
            return
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [node.module] if isinstance(node, ast.ImportFrom) else [node.names[0].name]
            assert names[0].split(".")[0] in sys.stdlib_module_names, names
    raise AssertionError("no such line")


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_ctrl_c_among_imports_is_no_traceback():
    process = start("CNN_Torch/train.py", "--dataset", "shapes", cold=True)
    maps = f"/proc/{process.pid}/maps"
    wait_until(lambda: "torch" in open(maps).read(), process)  # noqa: SIM115
    process.send_signal(signal.SIGINT)
    result = finish(process)
    assert result.code == -signal.SIGINT and (result.out, result.err) == ("", "")


def test_entry_hears_ctrl_c_again():
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        cli.entry(lambda: None)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


# ---- pictures on every machine ----


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "no-such"])
@pytest.mark.long
def test_a_backend_that_is_not_there_is_not_needed(backend, tmp_path):
    env, place = {"MPLBACKEND": backend}, ["--run-dir", tmp_path / "run"]
    for command in (["train.py", *small("MLP"), "--epochs", 1], ["test.py"]):
        result = run(f"MLP_Manual/{command[0]}", *command[1:], *place, more=env)
        assert (result.code, result.err) == (0, b"")
    assert (tmp_path / "run" / "curves.png").is_file()


@pytest.mark.long
def test_a_notebooks_backend_stays():
    code = """
import sys, matplotlib
matplotlib.use("svg")
import common.plots, GAN.utils.plots, LSTM.utils.plots, VAE.utils.plots, ViT.utils.plots
assert "matplotlib.pyplot" not in sys.modules
assert matplotlib.get_backend() == "svg"
"""
    assert run("-c", code, cold=True).code == 0


def test_only_common_plots_writes_figures():
    """The kinds of calls that need, or change, what a notebook shows."""
    for path in modules():
        name = path.relative_to(ROOT).as_posix()
        if name.startswith(("tests/", "common/plots.py")):
            continue
        if name.startswith("docs/"):  # its scripts draw what is committed, without common/
            continue
        text = path.read_text(encoding="utf-8")
        assert "pyplot" not in text and "matplotlib.use" not in text, name
        assert ".savefig(" not in text or name == "common/results/runs.py", name


@pytest.mark.pictures
def test_text_is_literal_everywhere(tmp_path):
    figure, ((left, right),) = plots.new_figure(1, 2)
    left.plot([1, 2], [1e-9, 2e-9], label=ODD)
    left.set(title=ODD, xlabel=ODD, ylabel=ODD)
    left.legend(title=ODD)
    right.set_xticks([0, 1], [ODD, "$$"], rotation=30)
    figure.suptitle(ODD)
    plots.save(figure, tmp_path / "picture.png")
    texts = [text for text in figure.findobj(Text) if text.get_text()]
    assert not any(text.get_parse_math() for text in texts)
    assert [text.get_text() for text in texts].count(ODD) >= 7


@pytest.mark.pictures
def test_names_with_dollars_and_bytes_can_be_drawn(tmp_path):
    classes = ["$$", "caf\udce9", "back\\slash"]
    row = {"epoch": 1, "dataset": ODD, "train_loss": 1.0, "validation_loss": 1.0}
    plots.draw_curves(tmp_path / "curves.png", [row])
    plots.draw_confusion_matrix(tmp_path / "confusion.png", torch.eye(3).long(), classes, ODD)
    plots.draw_images(tmp_path / "images.png", torch.rand(3, 4, 4), classes, ODD)
    maps = torch.rand(3, 4, 4)
    draw_overlays(tmp_path / "overlays.png", maps, maps, classes, ODD, "jet")
    for name in ("curves", "confusion", "images", "overlays"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def draw(path):
    figure, _ = plots.new_figure()
    plots.save(figure, path)


@pytest.mark.pictures
def test_a_picture_that_cannot_be_written_is_one_line_and_the_old_one_stays(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with user_error("cannot write", "file"):
        draw(tmp_path / "file" / "picture.png")
    (tmp_path / "picture.png").write_bytes(b"old")

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoint.os, "fsync", full)
    with user_error("cannot write", "picture.png", os.strerror(errno.ENOSPC)):
        draw(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "picture.png"]


# ---- what pictures show ----


@pytest.fixture
def figures(monkeypatch):
    """The figures that are drawn, instead of files."""
    drawn = []

    def keep(figure, path):
        figure.draw_without_rendering()
        drawn.append(figure)

    monkeypatch.setattr(plots, "save", keep)
    monkeypatch.setattr("ResNet.utils.overlays.save", keep)
    return drawn


def test_training_accuracy_stands_beside_that_of_validation(figures, tmp_path):
    row = {"dataset": "x", "train_loss": 1.0, "train_accuracy": 0.75}
    row |= {"validation_loss": 2.0, "validation_mse": 1.0, "validation_accuracy": 0.5}
    rows = [row | {"epoch": 1}, row | {"epoch": 2, "train_accuracy": 1.0}]
    plots.draw_curves(tmp_path, rows)
    for row in rows:
        del row["train_accuracy"]
    plots.draw_curves(tmp_path, rows)
    axes = [figure.axes[-1] for figure in figures]
    assert [axis.get_title() for axis in axes] == ["x: accuracy", "x: validation, accuracy"]
    assert [axis.get_ylabel() for axis in axes] == ["accuracy, %"] * 2
    found = {line.get_label(): line.get_ydata().tolist() for line in axes[0].lines}
    assert found == {"validation": [50.0, 50.0], "training": [75.0, 100.0]}
    assert [line.get_ydata().tolist() for line in axes[1].lines] == [[50.0, 50.0]]
    assert [text.get_text() for text in axes[0].get_legend().get_texts()] == list(found)
    assert axes[1].get_legend() is None
    colours = [[line.get_color() for line in axis.lines] for axis in axes]
    assert colours[0][0] == colours[1][0] != colours[0][1], "validation keeps its colour"
    assert [len(axis.lines) for axis in figures[0].axes] == [2, 1, 2], "nats are not squared errors"


def test_curves_have_whole_epochs_names_and_units(figures, tmp_path):
    row = {"epoch": 1, "dataset": "x", "train_loss": 1.0}
    metrics = {"loss": 2.0, "accuracy": 0.5, "frechet_distance": 0.1, "bits_per_character": 1.0}
    plots.draw_curves(tmp_path, [row | {f"validation_{k}": v for k, v in metrics.items()}])
    axes = figures[0].axes
    labels = ["loss, nats", "accuracy, %", "Fréchet distance", "bits per character"]
    assert [axis.get_ylabel() for axis in axes] == labels
    assert axes[1].get_title() == "x: validation, accuracy"
    assert axes[1].lines[0].get_ydata().tolist() == [50.0]
    for axis in axes:
        low, high = axis.get_xlim()
        assert [tick for tick in axis.get_xticks() if low <= tick <= high] == [1]
    for left, right in zip(axes, axes[1:], strict=False):
        label = right.yaxis.label.get_window_extent()
        assert label.x0 > left.get_window_extent().x1, "over the neighbour"


@pytest.mark.parametrize("folder", MLPS)
def test_curves_of_a_squared_error_are_of_one_kind(folder, figures, tmp_path, capsys):
    argv = [*small("MLP"), "--loss", "mse", "--epochs", 2, "--run-dir", tmp_path / "run"]
    assert call(capsys, script(folder).main, *argv).code == 0
    axis = figures[0].axes[0]
    rows = checkpoint.load(tmp_path / "run" / "last.safetensors")["history"]
    assert axis.get_ylabel() == "MSE"
    assert list(axis.lines[1].get_ydata()) == [row["validation_mse"] for row in rows]
    assert [other.get_ylabel() for other in figures[0].axes[1:]] == ["loss, nats", "accuracy, %"]


def test_the_squared_error_of_a_split_is_numpys():
    from MLP_Manual.dataset import load_training
    from MLP_Manual.model import MLP

    _, data = load_training("spirals", None)
    model = MLP(2, [4], 2)
    metrics = evaluate(model, data, mse=True)
    one_hot = torch.eye(2)[data.labels]
    expected = ((model.forward(data.inputs) - one_hot).numpy() ** 2).mean()
    assert metrics["mse"] == pytest.approx(expected, rel=1e-5)
    assert set(evaluate(model, data)) == {"loss", "accuracy"}


def test_no_mistakes_are_no_picture_of_one(figures, tmp_path):
    data = SimpleNamespace(labels=torch.tensor([0, 1]), classes=["a", "b"])
    images = torch.rand(2, 4, 4)
    plots.draw_worst_mistakes(tmp_path, lambda rows: images[rows], data, torch.eye(2), "x")
    assert not any(axis.images for axis in figures[0].axes)
    assert figures[0].get_suptitle().startswith("x: 0 mistakes")


def test_colours_have_a_key(figures, tmp_path):
    plots.draw_confusion_matrix(tmp_path, torch.eye(2).long(), ["a", "b"], "x")
    maps = torch.rand(2, 4, 4)
    draw_overlays(tmp_path, maps, maps, ["a", "b"], "x", "jet")
    assert figures[0].axes[-1].get_ylabel() == "share of the true class"
    assert figures[1].axes[-1].get_ylabel() == "of the largest value"


@pytest.mark.parametrize("folder", MLPS)
def test_a_map_stands_below_its_picture_and_its_colours_have_a_key(folder, tmp_path, monkeypatch):
    module, drawn = script(folder, "utils.plots"), []
    monkeypatch.setattr(module, "save", lambda figure, path: drawn.append(figure))
    pictures, maps = torch.rand(6, 4, 4), 5 * torch.rand(6, 4, 4)  # more than a row
    maps[5] = 0  # of a network that looks at nothing
    module.draw_sensitivity(tmp_path, pictures, maps, list("abcdef"), "x")
    *axes, key = drawn[0].axes
    assert key.get_ylabel() == "of the largest value"
    shown = [axis.images[0].get_array().data if axis.images else None for axis in axes]
    for n, (picture, places) in enumerate(zip(pictures, maps, strict=True)):
        above = 8 * (n // 4) + n % 4  # four in a row of pictures, then their maps
        assert axes[above].get_title() == "abcdef"[n]
        assert shown[above].tolist() == picture.tolist()
        expected = places / max(places.max().item(), 1e-12)
        torch.testing.assert_close(torch.tensor(shown[above + 4]), expected)
    assert sum(image is not None for image in shown) == 12


@pytest.mark.parametrize("folder", TRANSFORMERS)
def test_attention_says_who_looks(folder, tmp_path, monkeypatch):
    module, drawn = script(folder, "utils.attention_plots"), []
    monkeypatch.setattr(module, "save", lambda figure, path: drawn.append(figure))
    module.draw_attention(tmp_path, [torch.rand(2, 3, 3)], list("a$b"), list("abc"), "x")
    figure = drawn[0]
    assert (figure.get_supxlabel(), figure.get_supylabel()) == ("is looked at", "looks")
    assert figure.axes[-1].get_ylabel() == "share of the attention"


@pytest.mark.parametrize("folder", ["CNN_Manual", "CNN_Torch", "ResNet"])
def test_filters_are_counted_from_1(folder, tmp_path, monkeypatch):
    module, seen = script(folder, "utils.plots"), []
    monkeypatch.setattr(module, "draw_images", lambda *args, **kwargs: seen.append(args))
    module.draw_filters(tmp_path, torch.rand(3, 1, 3, 3), "x")
    assert seen[0][2] == ["filter 1", "filter 2", "filter 3"]


# ---- what scripts print ----


@pytest.mark.parametrize(
    "metrics, text",
    [
        ({"loss": 0.03125, "accuracy": 0.98764}, "loss 0.0312 nats, accuracy 98.76 %"),
        (
            {"loss": 104.123456, "reconstruction": 80.1234, "kl": 24.0},
            "loss 104.12, reconstruction 80.12, KL 24.00 nats",
        ),
        ({"frechet_distance": 0.5}, "Fréchet distance 0.5000"),
        ({"exact_match": 1.0}, "exact match 100.00 %"),
        ({"real_precision": 0.8918}, "precision of real ones 89.2 %"),
        ({"real_recall": 1.0}, "recall of real ones 100.0 %"),
        ({"real_confident_share": 0.985}, "real ones classified with ≥ 0.9 98.50 %"),
        ({"real_class_deviation": 0.014}, "largest deviation of a class of real ones 1.40 points"),
        ({"something_new": 1.0}, "something new 1.0000"),
        ({}, ""),
    ],
)
def test_metrics_are_written_in_one_way(metrics, text):
    assert history.describe(metrics) == text


@pytest.mark.parametrize(
    "metrics",
    [
        {"loss": 123.45678, "reconstruction": 123.45678, "kl": 123.45678},
        {"loss": 12.345678, "accuracy": 1.0},
        {"loss": 12.345678, "mse": 12.345678, "accuracy": 1.0},
        {"frechet_distance": 12.345678},
        {"loss": 12.345678, "exact_match": 1.0},
    ],
)
def test_an_epochs_line_fits(metrics, capsys):
    row = {"epoch": 100, "train_loss": 123.45678, "lr": 8e-9}
    console.print_epoch(row, metrics, 200, 123.4, is_best=True)
    line = capsys.readouterr().out
    assert len(line.rstrip("\n")) <= 100 and line.startswith("epoch 100/200*")
    assert "e-09" not in line


@pytest.mark.parametrize(
    "name, line",
    [
        ("posix", "python 'a b/test.py' --run-dir 'c d'"),
        ("nt", 'python "a b/test.py" --run-dir "c d"'),
    ],
)
def test_a_command_is_quoted_as_the_shell_takes_it_apart(name, line, monkeypatch):
    monkeypatch.setattr(
        console, "os", SimpleNamespace(name=name, path=SimpleNamespace(relpath=str))
    )
    assert console.command(Path("a b/test.py"), Path("c d")) == line


@pytest.mark.parametrize("epochs, text", [(1, "1 epoch,"), (2, "2 epochs,")])
def test_one_epoch_is_one_and_the_star_is_explained(epochs, text, tmp_path, capsys):
    argv = [*small("MLP"), "--epochs", epochs, "--run-dir", tmp_path / "run"]
    result = call(capsys, script("MLP_Torch").main, *argv)
    assert text in result.out and "an epoch's *  the best so far" in result.out


# ---- --help ----


@pytest.mark.parametrize(
    "argv", ["--dataset fashion-mnist --help", "--help --dataset fashion-mnist"]
)
def test_help_shows_the_defaults_of_the_dataset_beside_it(argv, capsys):
    for folder in FOLDERS:
        recipes = script(folder).RECIPES
        if "fashion-mnist" not in recipes:
            continue
        result = call(capsys, script(folder).main, *argv.split())
        text = " ".join(result.out.split())
        assert (
            f"passes over the training split (default: {recipes['fashion-mnist']['epochs']})"
            in text
        )
        assert "defaults are fashion-mnist's" in text


@pytest.mark.parametrize("folder", TRANSFORMERS)
def test_help_of_a_task_shows_its_first_dataset(folder, capsys):
    result = call(capsys, script(folder).main, "--help", "--task", "lm")
    assert "defaults are tiny-shakespeare's" in " ".join(result.out.split())
    assert "tokens per step" in result.out and "examples per step" not in result.out


@pytest.mark.parametrize("columns", [60, 200])
@pytest.mark.parametrize("path", SCRIPTS, ids=str)
def test_help_fits_the_terminal_and_has_no_default_of_none(path, columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    result = call(capsys, script(path.parts[0], path.stem).main, "--help")
    assert "None" not in result.out
    described = [line for line in result.out.splitlines() if line.startswith(" ")]
    assert max(map(len, described)) <= max(min(columns, 100), 100 if columns == 60 else 0)


@pytest.mark.parametrize("folder", [*WRITERS, *TRANSFORMERS])
def test_a_low_temperature_is_not_called_bold(folder, capsys):
    result = call(capsys, script(folder, "generate").main, "--help")
    text = " ".join(result.out.split())
    assert "below 1 more cautious, above bolder; 0: always the likeliest" in text


# ---- tools ----


@pytest.mark.parametrize("folder", ["GAN", "VAE"])
def test_generate_takes_the_same_flags_and_writes_over_nothing(folder, tmp_path, capsys):
    argv = [*small(folder), "--epochs", 1, "--run-dir", tmp_path / "run"]
    assert call(capsys, script(folder).main, *argv).code == 0
    for _ in range(2):
        flags = ["--run-dir", tmp_path / "run", "--count", 4]
        assert call(capsys, script(folder, "generate").main, *flags).code == 0
    names = sorted(path.name for path in (tmp_path / "run" / "generated").iterdir())
    assert names == ["samples-001.png", "samples-002.png"]


@pytest.mark.pictures
def test_echo_leaves_the_committed_picture_alone(tmp_path, monkeypatch, capsys):
    echo = script("RNN_Manual", "echo")
    monkeypatch.setattr(echo, "FOLDER", tmp_path)
    for number in (1, 2):
        flags = ["--delays", 2, "--steps", 2, "--hidden-size", 4, "--seeds", 1]
        assert call(capsys, echo.main, *flags).code == 0
        assert (tmp_path / "runs" / f"echo_memory-{number:03d}.png").is_file()
    assert not (tmp_path / "results").exists()


def test_a_network_that_knows_dates_says_so(tmp_path, capsys):
    argv = [*small("Transformer"), "--epochs", 1, "--run-dir", tmp_path / "run"]
    assert call(capsys, script("Transformer_Torch").main, *argv).code == 0
    ask = script("Transformer_Torch", "translate").main
    result = call(capsys, ask, "--run-dir", tmp_path / "run", "ÄÖÜ ÄÖÜ ÄÖÜ")
    assert result.code == 0
    assert "has learned reverse alone, no language" in result.err
    assert "11 of 11 tokens unknown" in result.err or "of 11 tokens unknown" in result.err


def test_a_baseline_tells_its_accuracy_without_recording(capsys, tmp_path, monkeypatch):
    baseline = script("LSTM", "baseline")
    monkeypatch.setattr(baseline, "FOLDER", tmp_path)
    result = call(capsys, baseline.main, "--dataset", "templates", "--subset", 200, "--C", 1)
    assert result.code == 0 and "test split of templates: loss" in result.out
    assert "accuracy" in result.out.splitlines()[-1] and not list(tmp_path.rglob("*.json"))


def test_training_the_judge_says_how_long(monkeypatch, capsys, tmp_path):
    from tests.running import make_digits

    place = make_digits(tmp_path / "data", sizes=(240, 40))
    monkeypatch.setattr("GAN.utils.classifier.MOST_EPOCHS", 1)
    argv = ["--data-dir", place, "--epochs", 1, "--batch-size", 32, "--channels", 4, "--subset", 64]
    result = call(
        capsys, script("GAN").main, "--dataset", "mnist", *argv, "--run-dir", tmp_path / "r"
    )
    assert result.code == 0
    assert "on all 216 of them" in result.out.replace("\n", " ") or "once, on all" in result.out
    assert "more minutes" in result.out and "will be kept as" in result.out
    shutil.rmtree(tmp_path / "r")
