"""Run folders: making a new one, finding an earlier one, its config.json, and where it was made."""

import json
import os
import platform
import re
import subprocess
from pathlib import Path

import torch

from common import checkpoint
from common.errors import UserError, printable

OWN_DATA = ("folder", "csv")  # datasets that are what lies in --data-dir, and called like it
RUN_FILES = ("history.csv", "last.safetensors", "best.safetensors")


def dataset_name(config: dict) -> str:
    """What runs and records call the dataset: for --dataset folder or csv, the folder's name."""
    own = config["dataset"] in OWN_DATA
    return printable(Path(config["data_dir"]).name if own else config["dataset"])


def named(run_dir: str) -> Path:
    """The folder that --run-dir means. Raises UserError for a name that no terminal can show."""
    if printable(run_dir) != run_dir:
        raise UserError(f"--run-dir {run_dir}: name a folder without control characters")
    return Path(run_dir)


def new_run(runs: Path, run_dir: str | None, dataset: str) -> Path:
    """Make the folder of a new run: `run_dir`, which must hold no run yet, or runs/NNNN-dataset."""
    try:
        if run_dir is not None:
            path = named(run_dir)
            if any((path / name).exists() for name in RUN_FILES):
                raise UserError(f"{path} holds a run already: add --resume, or name another folder")
            path.mkdir(parents=True, exist_ok=True)
            return path
        runs.mkdir(exist_ok=True)
        while True:
            path = runs / f"{max(map(number, numbered(runs)), default=0) + 1:04d}-{dataset}"
            try:
                path.mkdir()
                return path
            except FileExistsError:  # another run started at the same moment
                continue
    except OSError as error:
        raise UserError(f"cannot make the run folder: {error}") from None


def numbered(runs: Path) -> list[Path]:
    return [path for path in runs.glob("*-*") if re.match(r"\d{4,}-", path.name)]


def number(path: Path) -> int:
    return int(path.name.split("-")[0])


def find_run(runs: Path, run_dir: str | None, needed: str) -> Path:
    """The folder `run_dir`, or the latest run below `runs`, that holds the file `needed`.

    Raises UserError when there is none.
    """
    if run_dir is not None:
        if not os.path.isfile(named(run_dir) / needed):
            raise UserError(f"no run to use in {run_dir}: it has no {needed}")
        return Path(run_dir)
    found = [path for path in numbered(runs) if (path / needed).is_file()]
    if not found:
        raise UserError(f"no run with a {needed} in {runs}: train one first, or name a --run-dir")
    return max(found, key=number)


def write_config(run_dir: Path, flags: dict) -> None:
    """Write the run's config.json."""
    config = {k: v for k, v in flags.items() if k not in ("resume", "run_dir")}
    text = json.dumps(config, indent=2) + "\n"
    checkpoint.write_atomically(run_dir / "config.json", text.encode())


def read_config(run_dir: Path) -> dict:
    """The flags in the run's config.json. Raises UserError when they cannot be read."""
    path = run_dir / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): use another run") from None
    if not isinstance(config, dict) or "dataset" not in config:
        raise UserError(f"{path} holds no run's flags: use another run")
    return config


def git_commit() -> str | None:
    """The commit of this clone, "-dirty" when files differ from it; None outside of git."""
    here = str(Path(__file__).parent)
    command = ["git", "-C", here, "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return (
            subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.strip()
            or None
        )
    except (OSError, subprocess.TimeoutExpired):
        return None


def environment(device: torch.device) -> dict:
    """The machine and versions that a measurement depends on."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        processor = names[0].split(":")[1].strip() if names else processor
    facts = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": f"{processor}, {os.cpu_count()} cores",
        "threads": torch.get_num_threads(),
        "device": device.type,
    }
    if device.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(device)
    return facts


def facts(data) -> dict:
    """What a checkpoint keeps of the split that a run learns, to know it again."""
    classes = data.classes if hasattr(type(data), "shape") else None  # a text's are its characters
    return {"classes": classes, "examples": len(data), "checksums": data.checksums}


def check_same(path: Path, known: dict | None, data) -> None:
    """Raises UserError where the `facts` of the checkpoint at `path` are not those of `data`."""
    if known is None:  # an older run does not say
        return
    here = facts(data)
    check_classes(path, known["classes"], here["classes"])
    again = "put back what it learned from, or start without --resume"
    if known["examples"] != here["examples"]:
        counts = f"{known['examples']:,} examples, and there are {here['examples']:,} now"
        raise UserError(f"{path} is of a run on {counts}: {again}")
    for name in known["checksums"].keys() & here["checksums"].keys():
        if known["checksums"][name] != here["checksums"][name]:
            raise UserError(f"{path} is of a run on other content of {name}: {again}")


def check_classes(path: Path, known: list[str] | None, classes: list[str] | None) -> None:
    """Raises UserError for classes that are not those of a run, in its order. None is unknown."""
    if known is None or classes is None or list(known) == list(classes):
        return
    same = [a == b for a, b in zip(known, classes, strict=False)]
    first = max(0, [*same, False].index(False) - 1)  # what stands before the first that differs
    first = first if max(len(known), len(classes)) > 10 else 0
    there, here = (
        f"{len(names)}: {'… ' if first else ''}{', '.join(names[first : first + 10])}"
        + (" …" if len(names) > first + 10 else "")
        for names in (known, classes)
    )
    raise UserError(f"{path} knows other classes, {there}; those of the data are {here}")
