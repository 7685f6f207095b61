"""The front page: its figures are those of the records, its baselines have sources, its picture is
made of committed ones, and its lists are as long as they say."""

import json
import re
from pathlib import Path
from statistics import mean
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from common.data import ROOT
from common.device import environment
from common.history import METRICS
from common.results.compare_steps import TWINS
from docs import first_runs, front_picture, headlines, proven, symbols
from tests.running import FOLDERS, assert_one_line, call

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL))


def cells(table: str) -> list[list[str]]:
    """The rows of a table below its head."""
    return [line.strip("| ").split(" | ") for line in table.splitlines() if line[:1] == "|"][2:]


def test_one_screen_comes_before_all_else():
    """Two sentences, the two commands of .ci/run, a picture, and what is proven."""
    first = TEXT.partition("\n## ")[0]
    commands = re.findall(r"```bash\n(.+?)\n```", first)
    assert [command.split(" && ")[0] for command in commands] == [
        "pip install -r requirements.txt"
    ] * 2
    ci = (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert "pip install --quiet -r requirements.txt" in ci
    first_command, tests = (command.split(" && ")[1] for command in commands)
    assert f"\n  {tests}\n" in ci and (ROOT / first_command.split()[1]).is_file()
    assert first.count("![") == 1 and "](docs/front.png)" in first
    assert proven.table() in first and len(first.splitlines()) < 45


# ---- headline results ----


@pytest.mark.parametrize("row", headlines.headlines(), ids=lambda row: row["task"])
def test_our_figure_is_the_mean_of_the_records_runs(row):
    record = json.loads((ROOT / row["folder"] / "results" / f"{row['config']}.json").read_text())
    _, factor, decimals = METRICS[row["metric"]]
    figure = factor * mean(run["test"][row["metric"]] for run in record["runs"])
    (line,) = [line for line in cells(headlines.table()) if line[0].startswith(f"[{row['task']}]")]
    assert re.match(rf"\*\*{re.escape(f'{figure:.{decimals}f}')}[ *]", line[2])
    assert line[3] == str(len(record["runs"])) and not record["sample"]


@pytest.mark.parametrize("row", headlines.headlines(), ids=lambda row: row["task"])
def test_a_baseline_has_a_source_and_a_verdict(row):
    assert re.fullmatch(r"https://(github\.com/\S+/\S+|arxiv\.org/abs/\S+)", row["url"])
    assert re.match("yes|no|roughly|as above", row["comparable"])
    readme = (ROOT / row["folder"] / "README.md").read_text(encoding="utf-8")
    if "#known-baselines)" in readme:  # the twin's
        return
    known = readme.partition("## Known baselines")[2].partition("\n## ")[0].replace("−", "-")
    assert re.search(rf"(?<![\d.]){re.escape(row['theirs'])}(?!\d)", known)


def test_there_are_about_fifteen_of_all_kinds():
    rows = headlines.headlines()
    assert 15 <= len(rows) <= 20 and headlines.table() in SECTIONS["Headline results"]
    assert len({row["folder"] for row in rows}) >= 9


# ---- what is proven ----


def test_differences_are_the_largest_of_all_twins():
    """None is left out: every pair that compare.py knows is recorded."""
    found = [json.loads(path.read_text()) for path in ROOT.glob("*_Manual/results/compare*.json")]
    twins = [result for result in found if "twins" in result]
    assert {tuple(result["twins"].values()) for result in twins} == {
        (pair.manual, pair.native) for pair in TWINS.values()
    }
    table = proven.table()
    for kind in ("loss", "gradient"):
        largest = max(result["largest_difference"][kind] for result in twins)
        assert largest < 1e-12 and f"at most {largest:.0e} " in table
    ratios = [result["step_ratio"] for result in twins]
    layers = json.loads((ROOT / "RNN_Manual/results/compare_layers.json").read_text())["layers"]
    ratios += [layer["step_ratio"] for layer in layers.values()]
    assert f", {min(ratios):.2f} to {max(ratios):.2f} on 2 threads" in table
    study = json.loads((ROOT / "studies/results/compare_twins.json").read_text())
    ratios = [row["ratio"][1] for row in study["rows"] if row["what"] == "step"]
    assert f"| {min(ratios):.2f} to {max(ratios):.2f} on 1 thread, " in table


def test_every_proof_can_be_opened():
    for row in cells(proven.table()):
        places = re.findall(r"\]\(([^)#]+)", row[2])
        assert places and all((ROOT / place).is_file() for place in places)


# ---- lists ----


def test_ten_questions_have_an_answer_each():
    section = SECTIONS["Ten questions, and where they are answered"]
    questions = re.findall(r"^\d+\. (.+?)(?=^\d+\. |\Z)", section, re.MULTILINE | re.DOTALL)
    assert len(questions) == 10
    assert all("?" in question and "](" in question for question in questions)


def test_every_folder_is_on_the_map_and_on_the_path():
    folders = {path.parent.name for path in ROOT.glob("*/model.py")}
    table = SECTIONS["The folders"]
    assert {folder for folder in folders if f"[`{folder}`]({folder}/)" in table} == folders
    path = "".join(row[1] for row in cells(SECTIONS["The learning path"]))
    assert {folder for folder in folders if f"{folder}/" in path} == folders


def test_every_study_of_a_readme_is_asked_for():
    """A study's table stands between markers of its script's name."""
    asked = SECTIONS["The studies"]
    for readme in ROOT.glob("*/README.md"):
        scripts = {path.stem for path in readme.parent.glob("*.py")}
        marked = set(re.findall(r"<!-- (\w+) -->", readme.read_text(encoding="utf-8")))
        if scripts & marked - {"compare_layers", "profile_step", "samples"}:
            assert f"]({readme.parent.name}/README.md" in asked


# ---- the picture ----


@pytest.mark.parametrize("panel", front_picture.PANELS, ids=lambda panel: panel[0])
def test_a_panel_lies_within_a_committed_picture(panel):
    folder, _, name, (left, top, right, bottom) = panel
    with Image.open(ROOT / folder / "results" / f"{name}.png") as image:
        assert 0 <= left < right <= image.width and 0 <= top < bottom <= image.height
        colours = image.convert("RGB").crop((left, top, right, bottom)).getcolors(1 << 20)
    assert max(count for count, _ in colours) < 0.9 * (right - left) * (bottom - top), "empty"


@pytest.mark.pictures
def test_the_picture_is_drawn_anew(tmp_path):
    front_picture.main(tmp_path / "front.png")
    with Image.open(tmp_path / "front.png") as new, Image.open(front_picture.PICTURE) as old:
        assert abs(new.width - old.width) <= 20 and abs(new.height - old.height) <= 20


# ---- all symbols ----


def test_every_symbol_of_a_readme_is_on_the_page_of_symbols():
    page = (ROOT / "docs" / "symbols.md").read_text(encoding="utf-8")
    for folder in FOLDERS:
        text = (ROOT / folder / "README.md").read_text(encoding="utf-8")
        lines = text.partition("\n## The maths\n")[2].partition("\n\n###")[0].splitlines()
        rows = [line for line in lines if line.startswith("| $")]
        assert rows
        for row in rows:
            (line,) = [line for line in page.splitlines() if line.startswith(row)]
            assert f"[{folder}](../{folder}/README.md#the-maths)" in line


@pytest.mark.parametrize("letter, word", [("L", "the loss"), ("g", "gradient")])
def test_what_the_page_of_symbols_says_of_all(letter, word):
    meanings = [meaning for row, meaning in symbols.symbols() if f"${letter}$" in row.split(", ")]
    assert len(meanings) >= 1 and all(word in meaning for meaning in meanings)


# ---- how long a first run takes ----


@pytest.mark.parametrize(
    "seconds, words",
    [
        (5, "some seconds"), (13, "fifteen seconds"), (30, "half a minute"),
        (44, "half a minute"), (46, "a minute"),
        (89, "a minute"), (100, "two minutes"), (149, "two minutes"), (151, "three minutes"),
        (720, "twelve minutes"), (900, "a quarter of an hour"), (1_800, "half an hour"),
        (3_600, "an hour"), (9_000, "hours"),
    ],
)  # fmt: skip
def test_times_are_rounded_as_one_says_them(seconds, words):
    assert first_runs.about(seconds) == words


SAID = [  # a file, and what it says of a time; [data], [offline] stand for the folder's two times
    ("MLP_Manual/train.py", "learns MNIST in [data]."),
    ("MLP_Torch/train.py", "learns MNIST in [data]."),
    ("CNN_Manual/train.py", "learns MNIST in [data]."),
    ("CNN_Torch/train.py", "learns MNIST in [data]."),
    ("ResNet/train.py", "learns CIFAR-10 in [data]."),
    ("ViT/train.py", "learns CIFAR-10 in [data]."),
    ("VAE/train.py", "learns to write digits in [data]."),
    ("GAN/train.py", "learns to draw digits in [data]."),
    ("MLP_Manual/predict.py", "about [data] on 2 cores; [offline] without network and data"),
    ("MLP_Torch/predict.py", "about [data] on 2 cores; [offline] without network and data"),
    ("CNN_Manual/predict.py", "about [data] on 2 cores; [offline] without network and data"),
    ("CNN_Torch/predict.py", "about [data] on 2 cores; [offline] without network and data"),
    ("ResNet/predict.py", "about [data] on 2 cores; [offline] without network and data"),
    ("ViT/predict.py", "about [data] on 2 cores; [offline] without network and data"),
    ("LSTM/predict.py", "about [data] on 2 cores; [offline] without network and data"),
    ("RNN_Manual/generate.py", "about [data] on 2 cores; [offline] without network and data"),
    ("Transformer_Manual/translate.py", "about [data] on 2 cores; [offline] to learn dates"),
    ("Transformer_Torch/translate.py", "about [data] on 2 cores; [offline] to learn dates"),
    ("MLP_Manual/README.md", "train first (about [data] on two cores)"),
    ("MLP_Torch/README.md", "train first (about [data] on two cores)"),
    ("CNN_Manual/README.md", "train first (about [data] on two cores)"),
    ("CNN_Manual/README.md", "On MNIST they take about [[data]](../docs/using_it.md#how-long-a-"),
    ("CNN_Torch/README.md", "train first (about [data] on two cores)"),
    ("ResNet/README.md", "train first (about [data] on two cores)"),
    ("ViT/README.md", "train first (about [data] on two cores)"),
    ("RNN_Manual/README.md", "They take about [data]."),
    ("Transformer_Manual/README.md", "The default translation takes about [data], the"),
    ("Transformer_Manual/README.md", "learns dates in about [offline]"),
    ("Transformer_Torch/README.md", "The default translation takes about [data], the"),
    ("Transformer_Torch/README.md", "learns dates in about [offline]"),
    ("GAN/README.md", "[data] on two cores, without data [offline]."),
    ("GAN/README.md", "samples](results/mnist-sample_samples.png) after [offline]."),
    ("LSTM/README.md", "# 100 % in [offline]"),
    ("ViT/README.md", "# 16 classes, in [offline]"),
]
SAID += [  # in the lines "From Python"; language models are not what the Transformers learn first
    (f"{folder}/README.md", "# of `train.py`, about [data] ")
    for folder in first_runs.LEARNS if not folder.startswith("Transformer")
]  # fmt: skip


@pytest.mark.parametrize(
    "file, words", SAID, ids=[f"{file}-{n}" for n, (file, _) in enumerate(SAID)]
)
def test_what_is_said_of_times_was_measured(file, words):
    """Of every script that says how long a training takes, too."""
    says = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("*/*.py")
            if "\nTAKES = " in path.read_text(encoding="utf-8")}  # fmt: skip
    assert says <= {file for file, _ in SAID}
    for row in json.loads(first_runs.RECORD.read_text(encoding="utf-8"))["rows"]:
        if row["folder"] == file.partition("/")[0]:
            words = words.replace(f"[{row['kind']}]", first_runs.about(row["seconds"]))
    assert words in " ".join((ROOT / file).read_text(encoding="utf-8").split())


def test_the_table_of_first_runs_names_the_machine_of_rows_timed_elsewhere(tmp_path):
    here, path = {"processor": "This one"}, tmp_path / "rows.json"
    machines = {"environment": {**environment(torch.device("cpu")), **here}}
    elsewhere = {"environment": {**machines["environment"], "processor": "Another one"}}
    row = {"kind": "data", "epochs": 1, "epoch": 1.0, "seconds": 5.0}
    study = {"settings": {"photos": "photos"}, "command": "c", **machines, "rows": [
        {"folder": "LSTM", "dataset": "imdb", **row},
        {"folder": "ViT", "dataset": "folder", **row, **elsewhere},
        {"folder": "GAN", "dataset": "mnist", **row, **elsewhere},
    ]}  # fmt: skip
    path.write_text(json.dumps(study))
    note = first_runs.table(path).splitlines()[-3]
    first, second = note.split(" Timed on another machine (")
    assert "This one" in first and "Another one" not in first
    assert second.startswith("Another one") and second.endswith("): ViT (cifar10), GAN (mnist).")


def test_a_first_run_is_an_epoch_as_often_as_the_recipe_has_and_the_start(
    tmp_path, capsys, monkeypatch
):
    commands = []

    def run(command, cwd, env, **how):
        """A start of 5 seconds and an epoch of 2; but for ResNet, no data."""
        commands.append(command[1:-2])
        if "ResNet/train.py" in command:
            return SimpleNamespace(returncode=2, stderr="*** loud\nerror: no images")
        place = Path(command[-1])
        place.mkdir()
        (place / "history.csv").write_text("epoch,seconds\n1,2.0\n")
        return SimpleNamespace(returncode=0, stderr="")

    clock = iter([10.0, 17.0] * 9)
    monkeypatch.setattr(first_runs, "subprocess", SimpleNamespace(run=run))
    monkeypatch.setattr(first_runs, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    path = tmp_path / "first_runs.json"
    argv = ["--folders", "LSTM", "ViT", "--photos", tmp_path, "--output", path]
    for _ in range(2):  # what was found is not looked for again
        result = call(capsys, first_runs.main, *argv)
        assert (result.code, result.err) == (0, "")
    assert [command[2] for command in commands] == ["imdb", "templates", "folder", "shapes"]
    assert commands[2][3:5] == ["--data-dir", str(tmp_path)]
    rows = json.loads(path.read_text())["rows"]
    found = {row["kind"]: row["seconds"] for row in rows if row["folder"] == "LSTM"}
    assert found == {"data": 7 + 2 * 2, "offline": 7 + 3 * 2}, "recipes of 3 and of 4 epochs"
    learned = f"cifar10 (timed on {tmp_path.name})"
    assert f"| {learned} | fifteen seconds (15 s) | shapes | " in result.out
    argv[1:3] = ["GAN", "--kinds", "offline"]
    assert call(capsys, first_runs.main, *argv).code == 0 and commands[4][2] == "mnist-sample"
    argv[1:4] = ["ResNet"]
    parts = ["ResNet/train.py --dataset folder", "no images"]
    assert_one_line(call(capsys, first_runs.main, *argv), *parts)
