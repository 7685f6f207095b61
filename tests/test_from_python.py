"""The lines "From Python" of every folder's README, as they stand there: without a run, with one,
and of the sizes of the run that they name."""

import re
from argparse import Namespace
from pathlib import Path

import pytest
import torch

from common import checkpoint
from common.data import ROOT
from GAN.utils.build import build_model as build_players
from GAN.utils.kind import Kind
from LSTM.dataset.texts import Encoding
from tests.running import FOLDERS, script
from ViT.utils.build import build_model as build_vit

MANUAL = [folder for folder in FOLDERS if folder.endswith("_Manual")]
IMAGES = {  # what a data set of the README's run is like
    "mnist": Namespace(shape=(1, 28, 28), classes=range(10), inputs=torch.empty(1, 1, 28, 28)),
    "cifar10": Namespace(shape=(3, 32, 32), classes=range(10), inputs=torch.empty(1, 3, 32, 32)),
}


def lines(folder: str) -> str:
    text = (ROOT / folder / "README.md").read_text(encoding="utf-8")
    section = text.partition("\n### From Python\n")[2]
    code, closed, _ = section.partition("```python\n")[2].partition("```")
    assert closed
    return code


def named_run(folder: str) -> str:
    (run,) = re.findall(r'^run = Path\("(.+?)"\)', lines(folder), re.MULTILINE)
    assert run.startswith(f"{folder}/runs/0001-")
    return run


def execute(folder: str, place: Path, monkeypatch) -> dict:
    """Run the lines in a folder; what they have defined."""
    monkeypatch.chdir(place)
    torch.manual_seed(0)
    names = {}
    exec(compile(lines(folder), f"{folder}/README.md", "exec"), names)
    return names


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_lines_run_without_a_run(folder, tmp_path, monkeypatch, capsys):
    model = execute(folder, tmp_path, monkeypatch)["model"]
    hint, _, printed = capsys.readouterr().out.partition("\n")
    assert hint == f"untrained: there is no {named_run(folder)}"
    assert printed.startswith(f"{type(model).__name__}(\n") and "nan" not in printed
    if folder in MANUAL:
        assert all(g.isfinite().all() and g.any() for g in model.gradients().values())


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_lines_load_a_run_that_exists(folder, tmp_path, monkeypatch):
    model = execute(folder, tmp_path, monkeypatch)["model"]
    learned = {name: torch.rand_like(w.float()).to(w) for name, w in model.state_dict().items()}
    run = tmp_path / named_run(folder)
    run.mkdir(parents=True)
    checkpoint.save(run / "best.safetensors", {"model": learned})
    loaded = execute(folder, tmp_path, monkeypatch)["model"]
    assert not loaded.training
    assert all(torch.equal(w, learned[name]) for name, w in loaded.state_dict().items())


AVERAGED = [folder for folder in FOLDERS if "--ema" in script(folder).make_parser().format_help()]


@pytest.mark.parametrize("folder", AVERAGED)
def test_the_lines_load_the_average_of_the_weights(folder, tmp_path, monkeypatch):
    """Of a GAN, the generator alone has one."""
    model = execute(folder, tmp_path, monkeypatch)["model"]
    learned = {name: torch.rand_like(w.float()).to(w) for name, w in model.state_dict().items()}
    of = "generator." if folder == "GAN" else ""
    average = {name: w + 1 for name, w in learned.items() if name.startswith(of)}
    saved = {f"module.{name.removeprefix(of)}": w for name, w in average.items()}
    run = tmp_path / named_run(folder)
    run.mkdir(parents=True)
    state = {"model": learned, "average": {"n_averaged": torch.tensor(3), **saved}}
    checkpoint.save(run / "best.safetensors", state)
    loaded = execute(folder, tmp_path, monkeypatch)["model"]
    expected = learned | average
    assert not loaded.training
    assert all(torch.equal(w, expected[name]) for name, w in loaded.state_dict().items())


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_lines_have_the_sizes_of_the_run_that_they_name(folder, tmp_path, monkeypatch):
    """Of a run without any flag but --dataset or --task."""
    dataset = named_run(folder).partition("/runs/0001-")[2]
    train = script(folder)
    args = Namespace(**train.make_parser().defaults(dataset))
    data = {
        "imdb": Encoding(range(args.__dict__.get("vocabulary_size", 0)), ["negative", "positive"]),
        "tiny-shakespeare": range(65),
        **IMAGES,
    }[dataset]
    if folder.startswith("MLP"):
        data = Namespace(classes=data.classes, inputs=data.inputs.flatten(1))
    if folder == "GAN":
        data = Kind(data.shape, data.classes)
    build = {"GAN": build_players, "ViT": build_vit}.get(folder) or train.build_model
    trained = {name: w.shape for name, w in build(args, data).state_dict().items()}
    model = execute(folder, tmp_path, monkeypatch)["model"]
    assert {name: w.shape for name, w in model.state_dict().items()} == trained


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_lines_are_few(folder):
    """And a shell takes them: there, a block ends with an empty line."""
    body = [line for line in lines(folder).splitlines() if line and "import" not in line]
    assert len(body) <= (7 if folder in MANUAL else 5)
    assert not any(line.startswith(" ") for line in body)
