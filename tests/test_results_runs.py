"""common/results/runs.py on real runs and on made-up ones, whole and broken."""

import csv
import io
import json
import os
import subprocess
import sys

import pandas as pd
import pytest

from common.data import ROOT
from common.results import runs
from tests.running import FOLDERS, assert_one_line, call, environment, script, small

pytestmark = pytest.mark.pictures


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A repository of the twelve folders, without runs."""
    for folder in FOLDERS:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "train.py").touch()
    monkeypatch.setattr(runs, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make_run(root, name: str, values=(), metric="accuracy", folder="MLP_Manual", **flags):
    """A run folder whose validation `metric` was `values`, an epoch in two seconds."""
    path = root / folder / "runs" / name
    path.mkdir(parents=True)
    flags = {"dataset": "spirals", "epochs": 5, "seed": 0, "lr": 0.1, "device": "cpu", **flags}
    (path / "config.json").write_text(json.dumps(flags))
    if values:
        lines = [f"epoch,dataset,train_loss,validation_{metric},lr,seconds"]
        lines += [f"{n},spirals,0.5,{value},0.1,{2 * n}.25" for n, value in enumerate(values, 1)]
        (path / "history.csv").write_text("\n".join(lines) + "\n")
    return path


def cells(result) -> list[list[str]]:
    """The words of each line that was printed, but for the last: what the star means."""
    assert (result.code, result.err) == (0, "")
    assert result.out.splitlines()[-1].startswith("* best of its dataset, task and metric")
    return [line.split() for line in result.out.splitlines()[:-1] if line]


def shown(root, folder="MLP_Manual") -> dict[str, str]:
    table = runs.read_runs(root / folder)
    return dict(zip(table["run"], table["shown"], strict=True))


def starred(root, folder="MLP_Manual") -> list[str]:
    table = runs.read_runs(root / folder)
    return list(table["run"][table["best"] == "*"])


# ---- the table ----


@pytest.mark.smoke
def test_table(root, capsys):
    make_run(root, "0002-spirals", [0.5, 0.75, 0.7])
    make_run(root, "0010-spirals", [0.25], lr=0.01, seed=3, hidden_sizes=[64, 8], device="cuda")
    make_run(root, "0001-spirals", epochs=7, data_dir="/elsewhere", commit="abc")
    assert cells(call(capsys, runs.main)) == [
        ["MLP_Manual"],
        ["dataset", "epochs", "best", "validation", "seconds", "seed", "--lr"],
        ["0001", "spirals", "0/7", "no", "epoch", "yet", "0", "0.1"],
        ["*", "0002", "spirals", "3/5", "accuracy", "75.00", "%", "6.2", "0", "0.1"],
        ["0010", "spirals", "1/5", "accuracy", "25.00", "%", "2.2", "3", "0.01"],
    ]


@pytest.mark.smoke
def test_real_runs(root, capsys):
    """Two runs of MLP_Manual/train.py: what is shown is what their histories hold."""
    best = []
    for n, lr in enumerate(("0.1", "0.001"), 1):
        path = root / "MLP_Manual" / "runs" / f"000{n}-spirals"
        argv = [*small("MLP_Manual"), "--epochs", "2", "--lr", lr, "--run-dir", str(path)]
        script("MLP_Manual").main(argv)
        with open(path / "history.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        best.append(max(float(row["validation_accuracy"]) for row in rows))
        assert len(rows) == 2
    table = runs.read_runs(root / "MLP_Manual")
    assert list(table["value"]) == [100 * value for value in best]
    assert list(table["shown"]) == [f"accuracy {100 * value:.2f} %" for value in best]
    assert list(table["best"]) == ["*" * (value == max(best)) for value in best]
    assert list(table["done"]) == [2, 2] and list(table["epochs"]) == ["2", "2"]
    assert [name for name in table if name.startswith("--")] == ["--lr"]
    assert list(table["--lr"]) == ["0.1", "0.001"]
    assert "*" in call(capsys, runs.main, "MLP_Manual").out


@pytest.mark.parametrize(
    ("metric", "values", "expected"),
    [
        ("accuracy", [0.1, 0.98765, 0.5], "accuracy 98.77 %"),
        ("loss", [3, 0.25, 0.5], "loss 0.2500 nats"),
        ("bleu", [3.5, 41.257, 40], "BLEU 41.26"),
        ("frechet_distance", [9, 1.25, 2], "Fréchet distance 1.2500"),
        ("unheard_of", [9, 1.25, 2], "no validation"),
    ],
)
def test_best_of_each_metric(root, metric, values, expected):
    make_run(root, "0001-spirals", values, metric)
    assert shown(root) == {"0001-spirals": expected}
    assert starred(root) == (["0001-spirals"] if expected != "no validation" else [])


def test_accuracy_goes_before_loss(root):
    path = make_run(root, "0001-spirals", [0.5])
    text = "epoch,validation_loss,validation_accuracy,seconds\n1,0.1,0.5,1\n2,0.2,0.75,2\n"
    (path / "history.csv").write_text(text)
    assert shown(root) == {"0001-spirals": "accuracy 75.00 %"}


def test_equally_good_runs_share_the_star(root):
    for n, value in enumerate([1.0, 0.5, 1.0]):
        make_run(root, f"000{n}-spirals", [value])
    assert starred(root) == ["0000-spirals", "0002-spirals"]


@pytest.mark.parametrize(
    ("metric", "one", "other", "compared"),
    [
        ("accuracy", {}, {"lr": 3}, True),
        ("accuracy", {"model": "a"}, {"model": "b"}, True),
        ("accuracy", {"data_dir": "/a/mnist"}, {"data_dir": "/b/mnist"}, True),
        ("accuracy", {"dataset": "spirals"}, {"dataset": "mnist"}, False),
        ("loss", {"task": "translate"}, {"task": "lm"}, False),
        ("loss", {"beta": 1.0}, {"beta": 4.0}, False),
        ("loss", {"model": "vae"}, {"model": "iwae"}, False),
        ("loss", {"vocabulary_size": 100}, {"vocabulary_size": 6000}, False),
        ("loss", {"dataset": "files", "src": "/a"}, {"dataset": "files", "src": "/b"}, False),
        ("accuracy", *(dict(dataset="folder", data_dir=f"/{x}/pets") for x in "ab"), False),
        ("accuracy", *(dict(dataset="csv", data_dir=f"/{x}/mails") for x in "ab"), False),
        ("loss", *(dict(dataset="text", data_dir=f"/{x}/poems") for x in "ab"), False),
    ],
)
def test_only_what_measures_the_same_is_compared(root, metric, one, other, compared):
    make_run(root, "0001-x", [0.5], metric, **one)
    make_run(root, "0002-x", [0.6], metric, **other)
    winner = "0002-x" if metric == "accuracy" else "0001-x"
    assert starred(root) == ([winner] if compared else ["0001-x", "0002-x"])


def test_different_metrics_and_folders_are_not_compared(root):
    make_run(root, "0001-spirals", [0.5], "accuracy")
    make_run(root, "0002-spirals", [0.6], "loss")
    make_run(root, "0001-spirals", [0.9], "accuracy", folder="MLP_Torch")
    assert starred(root) == ["0001-spirals", "0002-spirals"]
    assert starred(root, "MLP_Torch") == ["0001-spirals"]


def test_tasks_have_a_column_where_there_are_some(root, capsys):
    make_run(root, "0001-dates", [0.5], "loss", "Transformer_Torch", dataset="dates", task="lm")
    make_run(root, "0001-spirals", [0.5])
    assert cells(call(capsys, runs.main)) == [
        ["MLP_Manual"],
        ["dataset", "epochs", "best", "validation", "seconds", "seed"],
        ["*", "0001", "spirals", "1/5", "accuracy", "50.00", "%", "2.2", "0"],
        ["Transformer_Torch"],
        ["dataset", "task", "epochs", "best", "validation", "seconds", "seed"],
        ["*", "0001", "dates", "lm", "1/5", "loss", "0.5000", "nats", "2.2", "0"],
    ]


def test_differing_flags(root):
    """Of the same folder alone; one that a run lacks differs only if the others' do."""
    make_run(root, "0001-x", lr=0.1, warmup=0, augment=[], sizes=[1, 2], clip=0.0, old=1)
    make_run(root, "0002-x", lr=0.1, warmup=5, augment=["flip"], sizes=[1, 2], clip=0)
    make_run(root, "0003-x", lr=0.1, warmup=5, augment=["flip"], sizes=[1, 2], clip=0.0)
    make_run(root, "0001-x", lr=0.2, folder="MLP_Torch")
    table = runs.read_runs(root / "MLP_Manual").filter(like="--")
    assert table.to_dict("list") == {
        "--warmup": ["0", "5", "5"],
        "--augment": ["none", "flip", "flip"],
    }


def test_own_folders_and_nested_runs_are_found(root):
    make_run(root, "0001-pets", [0.5], dataset="folder", data_dir="/somewhere/pets")
    make_run(root, "study/a", [0.6])
    (root / "MLP_Manual/runs/0002-spirals.txt").touch()  # no run
    table = runs.read_runs(root / "MLP_Manual")
    assert list(zip(table["run"], table["dataset"], strict=True)) == [
        ("0001-pets", "pets"),
        ("study/a", "spirals"),
    ]


def test_named_folders_alone(root, capsys):
    for folder in FOLDERS[:3]:
        make_run(root, "0001-spirals", [0.5], folder=folder)
    every = call(capsys, runs.main).out
    assert [folder for folder in FOLDERS if folder in every.splitlines()] == FOLDERS[:3]
    assert "no runs yet" not in every
    named = call(capsys, runs.main, "LSTM", FOLDERS[0] + "/")
    assert [line for line in cells(named) if len(line) < 5] == [
        ["LSTM"], ["no", "runs", "yet"], [FOLDERS[0]],
    ]  # fmt: skip


def test_width(root, capsys, monkeypatch):
    """A terminal's lines are no longer than it is wide; in a pipe, a run is one line."""
    long = "x" * 70
    make_run(root, "0001-spirals", [0.5], **{f"flag_number_{n}": n for n in range(9)})
    make_run(root, long, [0.5], **{f"flag_number_{n}": -n - 1 for n in range(9)})
    rows = cells(call(capsys, runs.main))
    assert [len(row) for row in rows[1:]] == [15, 18, 18]
    assert rows[3][1] == long
    (root / "MLP_Manual/runs" / long).rename(root / "MLP_Manual/runs/mine")
    monkeypatch.setenv("COLUMNS", "72")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    out = call(capsys, runs.main).out
    assert max(map(len, out.splitlines())) <= 72
    assert all(f"--flag-number-{n}" in out for n in range(9))


# ---- broken runs ----

HEADER = "epoch,dataset,train_loss,validation_loss,lr,seconds\n"


@pytest.mark.smoke
@pytest.mark.parametrize(
    "config",
    [
        "", "{", "[]", "null", "7", '{"lr": 1}', '{"dataset": "folder"}',
        '{"dataset": "csv", "data_dir": null}', "[" * 100_000, '{"dataset": "sp', "\0\0\0",
    ],
)  # fmt: skip
def test_unreadable_config(root, capsys, config):
    path = make_run(root, "0001-spirals", [0.5])
    (path / "config.json").write_text(config)
    make_run(root, "0002-spirals", [0.25])
    rows = cells(call(capsys, runs.main))
    assert rows[2] == ["0001-spirals", "?", "0/?", "config.json", "unreadable"]
    assert rows[3][:2] == ["*", "0002"]


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        (HEADER, "no epoch yet"),
        (HEADER + "1,x,0.5,0.25,0.1,2.0\n", "loss 0.2500 nats"),
        *(
            (text, "history.csv unreadable")
            for text in [
                "", "\n", "\0" * 99, "not a table\n", "a,b\n1,2\n", "epoch\n1\n", "seconds\n1\n",
                HEADER[:20],
                HEADER + "1,x,0.5,0.25,0.1,2.0",  # 2.0 may have been 2.05
                HEADER + "1,x,0.5,0.25\n",
                HEADER + "1,x,0.5,nan,0.1,2.0\n",
                HEADER + "1,x,0.5,inf,0.1,2.0\n",
                HEADER + "1,x,0.5,low,0.1,2.0\n",
                HEADER + "1,x,0.5,0.25,0.1,2.0,9,9\n",
                HEADER + "1,x,0.5,0.25,0.1,2.0\n1,x,0.5,0.2,0.1,2.0,9\n",
                HEADER + "1,x,0.5,0.25,0.1,2.0\n3,x,0.5,0.25,0.1,4.0\n",
                HEADER + "1,x,0.5,0.25,0.1,2.0\n1,x,0.5,0.25,0.1,2.0\n",
                HEADER + '1,"x,0.5,0.25,0.1,2.0\n',
            ]
        ),
    ],
)  # fmt: skip
def test_history(root, history, expected):
    path = make_run(root, "0001-spirals")
    (path / "history.csv").write_text(history)
    assert shown(root) == {"0001-spirals": expected}


def test_what_is_no_file(root):
    """Not opened: a FIFO would wait for ever."""
    make_run(root, "0001-x", [0.5])
    (root / "MLP_Manual/runs/0002-x").mkdir()
    for n, name in ((3, "config.json"), (4, "history.csv")):
        path = make_run(root, f"000{n}-x", [0.5])
        (path / name).unlink()
        os.mkfifo(path / name)
    path = make_run(root, "0005-x")
    (path / "history.csv").write_bytes(b"\xff\xfe")
    assert shown(root) == {
        "0001-x": "accuracy 50.00 %",
        "0002-x": "no config.json",
        "0003-x": "no config.json",
        "0004-x": "history.csv unreadable",
        "0005-x": "history.csv unreadable",
    }


def test_strange_values(root, capsys):
    """config.json may hold anything."""
    flags = {"seed": [1, [2]], "epochs": None, "task": {"a": 1}, "dataset": ["x"], "lr\n": "a\tb"}
    make_run(root, "0001-x", [0.5], **flags)
    make_run(root, "0002-x\n\x1b[31m", [0.5], **{"lr\n": "\ud800"})
    out = call(capsys, runs.main, "--csv", "t.csv").out
    assert r"0002-x\n\x1b[31m" in out and r"a\tb" in out and r"\ud800" in out
    assert "\x1b" not in out and len(out.splitlines()) == 6
    assert list(pd.read_csv("t.csv")["run"]) == ["0001-x", r"0002-x\n\x1b[31m"]


def test_no_runs(root, capsys):
    for argv in ([], ["GAN", "--plot"], ["--csv", "-"]):
        assert_one_line(call(capsys, runs.main, *argv), "no runs yet", "/train.py")
    assert not (root / "runs.png").exists()


def test_unknown_folder(root, capsys):
    assert_one_line(call(capsys, runs.main, "MLP"), "'MLP'", *FOLDERS)


# ---- CSV ----


def test_csv(root, capsys):
    make_run(root, "0001-spirals", [0.5, 1 / 3], hidden_sizes=[4, 4])
    make_run(root, "0002-spirals", hidden_sizes=[8])
    make_run(root, "0001-dates", [0.1], "loss", "Transformer_Torch", dataset="dates", task="lm")
    text = call(capsys, runs.main, "--csv", "-").out
    table = pd.read_csv(io.StringIO(text))
    assert list(table["run"]) == ["0001-spirals", "0002-spirals", "0001-dates"]
    assert list(table["folder"]) == ["MLP_Manual", "MLP_Manual", "Transformer_Torch"]
    assert list(table["value"].round(12)[[0, 2]]) == [50, 0.1] and table["value"].isna()[1]
    assert list(table["unit"][[0, 2]]) == ["%", "nats"]
    assert list(table["seconds"][[0, 2]]) == [4.25, 2.25]
    assert list(table["done"]) == [2, 0, 1] and list(table["epochs"]) == [5, 5, 5]
    assert list(table["best"].fillna("")) == ["*", "", "*"]
    assert list(table["shown"]) == ["accuracy 50.00 %", "no epoch yet", "loss 0.1000 nats"]
    assert list(table["--hidden-sizes"].fillna("")) == ["4 4", "8", ""]

    result = call(capsys, runs.main, "--csv", "table.csv")
    assert (root / "table.csv").read_text() == text
    assert result.err == "wrote table.csv\n" and "MLP_Manual" in result.out.splitlines()
    assert call(capsys, runs.main, "--csv", "table.csv").err == "replaced table.csv\n"


# ---- the picture ----


def figure(root, *folders):
    file = io.BytesIO()
    tables = [runs.read_runs(root / folder) for folder in folders or ("MLP_Manual",)]
    figure = runs.draw(pd.concat(tables, ignore_index=True), file)
    assert file.getvalue().startswith(b"\x89PNG\r\n")
    return figure


@pytest.mark.smoke
def test_picture(root):
    make_run(root, "0001-spirals", [0.5, 0.75])
    make_run(root, "0002-spirals", [0.25, 0.5, 0.6], lr=0.01)
    make_run(root, "0003-spirals", lr=0.5)  # no epoch yet
    left, right = figure(root).axes
    assert (left.get_xlabel(), right.get_xlabel()) == ("epoch", "seconds")
    assert left.get_ylabel() == "validation accuracy, %"
    assert left.get_title(loc="left") == "MLP_Manual: spirals accuracy"
    for axis, x in ((left, [1, 2, 3]), (right, [2.25, 4.25, 6.25])):
        one, other = axis.lines
        assert list(one.get_xdata()) == x[:2] and list(one.get_ydata()) == [50, 75]
        assert list(other.get_xdata()) == x and list(other.get_ydata()) == [25, 50, 60]
    legend = [text.get_text() for text in right.get_legend().get_texts()]
    assert legend == ["* 0001-spirals  lr=0.1", "  0002-spirals  lr=0.01"]


def test_picture_has_a_row_for_each_kind(root):
    make_run(root, "0001-x", [0.5], "loss", "VAE", model="vae", beta=1.0)
    make_run(root, "0002-x", [0.5], "loss", "VAE", model="vae", beta=4.0)
    make_run(root, "0003-x", [0.6], "loss", "VAE", model="vae", beta=4.0, seed=1)
    make_run(root, "0001-x", [0.5])
    axes = figure(root, "MLP_Manual", "VAE").axes
    titles = ["MLP_Manual: spirals accuracy", "VAE: spirals loss model=vae beta=1",
              "VAE: spirals loss model=vae beta=4"]  # fmt: skip
    assert [axis.get_title(loc="left") for axis in axes[::2]] == titles
    assert [len(axis.lines) for axis in axes] == [1, 1, 1, 1, 2, 2]
    legend = [text.get_text() for text in axes[5].get_legend().get_texts()]
    assert legend == ["* 0002-x  seed=0", "  0003-x  seed=1"]


def test_text_in_the_picture_is_literal(root):
    names = [r"$$", r"$\frac{$", "_hidden", "a\nb\x07", "\\"]
    for name in names:
        make_run(root, name, [0.5], dataset=r"$x^$", **{"lr": name})
    axis = figure(root).axes[1]
    legend = [text.get_text().strip() for text in axis.get_legend().get_texts()]
    expected = [f"* {n}  lr={n}" for n in (r"$$", r"$\frac{$", "\\", "_hidden", r"a\nb\x07")]
    assert sorted(legend) == sorted(expected)
    texts = [*axis.get_legend().get_texts(), axis.figure.axes[0]._left_title]
    assert not any(text.get_parse_math() for text in texts)


def test_many_runs_can_be_told_apart(root):
    for n in range(25):
        make_run(root, f"{n:04}-spirals", [0.5, n / 25], lr=n)
    lines = figure(root).axes[0].lines
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 25


def test_plot_writes_and_says_so(root, capsys):
    make_run(root, "0001-spirals", [0.5])
    assert call(capsys, runs.main, "--plot").err == "wrote runs.png\n"
    assert (root / "runs.png").read_bytes().startswith(b"\x89PNG\r\n")
    assert call(capsys, runs.main, "--plot").err == "replaced runs.png\n"
    assert call(capsys, runs.main, "--plot", "a.png", "MLP_Manual").err == "wrote a.png\n"
    assert sorted(path.name for path in root.glob("*.*")) == ["a.png", "runs.png"]


def test_what_cannot_be_written_is_one_line(root, capsys):
    make_run(root, "0001-spirals", [0.5])
    (root / "there.png").mkdir()
    os.mkfifo(root / "fifo.csv")
    for argv, part in [
        (["--plot", "MLP_Manual"], "ends in .png"),
        (["--plot", "there.png"], "there.png"),
        (["--plot", "no/such/place.png"], "No such file"),
        (["--csv", "fifo.csv"], "fifo.csv"),
        (["--csv", "no/such/place.csv"], "No such file"),
        (["--csv", os.devnull], os.devnull),
    ]:
        assert_one_line(call(capsys, runs.main, *argv), part)
    assert not (root / "runs.png").exists() and not os.path.isfile(os.devnull)


def test_nothing_to_draw(root, capsys):
    make_run(root, "0001-spirals")
    assert_one_line(call(capsys, runs.main, "--plot"), "nothing to draw")
    assert not (root / "runs.png").exists()


@pytest.mark.long
def test_leaves_the_backend_alone(root):
    """A notebook's may not even be there."""
    make_run(root, "0001-spirals", [0.5])
    code = f"""
import pathlib, sys
from common.results import runs
runs.ROOT = pathlib.Path({str(root)!r})
runs.main(["--plot", {str(root / "p.png")!r}])
import matplotlib
assert matplotlib.rcParams._get("backend") == "module://not_there"
assert "matplotlib.pyplot" not in sys.modules
"""
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
        env=environment(MPLBACKEND="module://not_there"),
    )  # fmt: skip
    assert (process.returncode, process.stderr) == (0, f"wrote {root / 'p.png'}\n")
