"""How long a first run takes: `python -m docs.first_runs` (a quarter of an hour).

The default run of every folder, with its data and with what stands in for them, is started for one
epoch. What that epoch took, times the epochs of the recipe, and what the start took, is the time of
the whole run; `about` rounds it as one says it. Rows are kept as they are found.
"""

import csv
import importlib
import os
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

from common import cli
from common.data import ROOT
from common.device import machine, select_device
from common.errors import UserError
from common.results import rows, tables

RECORD = ROOT / "docs" / "first_runs.json"
LEARNS = {  # the dataset of a default run, and what stands in for it
    "MLP_Manual": ("mnist", "mnist-sample"),
    "MLP_Torch": ("mnist", "mnist-sample"),
    "CNN_Manual": ("mnist", "mnist-sample"),
    "CNN_Torch": ("mnist", "mnist-sample"),
    "ResNet": ("cifar10", "shapes"),
    "ViT": ("cifar10", "shapes"),
    "RNN_Manual": ("tiny-shakespeare", "help-topics"),
    "LSTM": ("imdb", "templates"),
    "Transformer_Manual": ("multi30k", "dates"),
    "Transformer_Torch": ("multi30k", "dates"),
    "VAE": ("mnist", "mnist-sample"),
    "GAN": ("mnist", "mnist-sample"),
}
KINDS = ("data", "offline")
WORDS = ["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]


def about(seconds: float) -> str:
    """As one says it: fifteen seconds, half a minute, two to twelve minutes, half an hour …"""
    limits = {10: "some seconds", 20: "fifteen seconds", 45: "half a minute", 90: "a minute"}
    limits |= {60 * (n + 0.5): f"{word} minutes" for n, word in enumerate(WORDS, 2)}
    limits |= {60 * 20: "a quarter of an hour", 60 * 45: "half an hour", 60 * 90: "an hour"}
    return next((words for limit, words in limits.items() if seconds < limit), "hours")


def first_run(folder: str, kind: str, photos: str | None) -> dict:
    """The seconds of a run: of its start, of an epoch, and of all its epochs with the start."""
    dataset = LEARNS[folder][KINDS.index(kind)]
    flags = ["--dataset", dataset]
    if dataset == "cifar10" and photos:
        dataset, flags = "folder", ["--dataset", "folder", "--data-dir", photos]
    epochs = importlib.import_module(f"{folder}.train").RECIPES[dataset]["epochs"]
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, f"{folder}/train.py", *flags, "--epochs", "1"]
        begun = time.perf_counter()
        done = subprocess.run(
            [*command, "--run-dir", f"{place}/run"], cwd=ROOT, capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        whole = time.perf_counter() - begun
        if done.returncode:
            reason = (done.stderr.strip() or "no word").splitlines()[-1]
            raise UserError(f"{' '.join(command[1:])} failed: {reason}")
        with open(f"{place}/run/history.csv", encoding="utf-8", newline="") as file:
            (row,) = csv.DictReader(file)
    epoch = float(row["seconds"])
    seconds = whole + (epochs - 1) * epoch
    return {"dataset": dataset, "epochs": epochs, "epoch": round(epoch, 2),
            "seconds": round(seconds, 1)}  # fmt: skip


def table(path: Path = RECORD) -> str:
    """What was found, in Markdown."""
    study = rows.read(path)
    lines = [["folder", "a first run learns", "in about", "without network and data", "in about"]]
    for folder in LEARNS:
        cells = []
        for kind in KINDS:
            for row in rows.matching(study, folder=folder, kind=kind):
                learned, photos = row["dataset"], study["settings"]["photos"]
                if learned == "folder":
                    learned = f"{LEARNS[folder][0]} (timed on {photos})"
                cells += [learned,
                          f"{about(row['seconds'])} ({row['seconds']:.0f} s)"]  # fmt: skip
        if len(cells) == 4:
            lines.append([f"[`{folder}`](../{folder}/)", *cells])
    note = "One epoch was measured, and multiplied by the number of epochs of the recipe "
    note += f"({machine(study['environment'])})."
    elsewhere: dict[str, list[str]] = {}
    for row in study["rows"]:
        if "environment" in row:
            runs = elsewhere.setdefault(machine(row["environment"]), [])
            learned = LEARNS[row["folder"]][KINDS.index(row["kind"])]
            runs.append(f"{row['folder']} ({learned})")
    for place, runs in elsewhere.items():
        note += f" Timed on another machine ({place}): {', '.join(runs)}."
    return "\n".join([*tables.table(lines), "", note, "", f"`{study['command']}`"])


def main(argv=None):
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--folders", nargs="+", choices=LEARNS, help="some of them (default: all)")
    add("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="with data, or without")
    add("--photos", type=cli.place, help="a folder of images to learn in the place of CIFAR-10")
    add("--output", metavar="FILE", help="the rows (default: docs/runs/first_runs.json)")
    args = parser.parse_args(argv)
    keys = product(args.folders or LEARNS, args.kinds)
    keys = [{"folder": folder, "kind": kind} for folder, kind in keys]

    def make(folder: str, kind: str) -> dict:
        row = first_run(folder, kind, args.photos)
        print(f"{folder:18}  {row['dataset']:16}  {row['seconds']:6.0f} s", flush=True)
        return row

    path = Path(args.output or ROOT / "docs" / "runs" / "first_runs.json")
    photos = args.photos and Path(args.photos).resolve().name
    command = "python -m docs.first_runs" + (f" --photos {photos}" if photos else "")
    rows.collect(path, {"photos": photos}, command, select_device("auto"), keys, make)
    print(f"\n{table(path)}")


if __name__ == "__main__":
    cli.entry(main)
