"""Result records: one JSON file per recipe in a folder's results/, a row per seed."""

import json
import os
import platform
import subprocess
from pathlib import Path

import torch

from common import checkpoint
from common.data import ROOT
from common.errors import UserError
from common.folders import OWN_DATA, dataset_name
from common.history import best_row, validation_metrics

# flags that say where and how long ago, not what was learned
NOT_HYPERPARAMETERS = {
    "seed",
    "device",
    "data_dir",
    "run_dir",
    "resume",
    "given",
    "commit",
    "environment",
    "dataset",
}


def git_commit() -> str | None:
    """The commit of this clone, "-dirty" when files differ from it; None outside of git."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
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


def training_command(folder: Path, config: dict, script: str = "train.py") -> str:
    """The command that repeats the run, without its seed and places."""
    words = [f"python {folder.name}/{script}"]
    for name in config["given"]:
        if name not in NOT_HYPERPARAMETERS or name == "dataset":
            value = config[name]
            values = " ".join(map(str, value)) if isinstance(value, list) else str(value)
            flag = "--" + name.replace("_", "-")
            words.append(f"--no-{flag[2:]}" if value is False else flag)
            words += [] if isinstance(value, bool) else [values]
    if config["dataset"] in OWN_DATA:
        words.append(f"--data-dir {dataset_name(config)}")
    return " ".join(words)


def write(
    folder: Path, name: str, config: dict, state: dict, *, model, parameters: int,
    examples: dict, checksums: dict, test: dict, script: str = "train.py",
    signatures: dict[str, str] | None = None,
) -> tuple[Path, bool]:  # fmt: skip
    """Add the run's row to results/`name`.json; a row of the same seed is replaced.

    Returns the file, and whether this seed is the file's lowest (whose pictures are shown).
    Refuses (UserError) a run that did not end, and one of another recipe than the file's.
    """
    waited = len(state["history"]) - best_row(state["history"])["epoch"]
    if state["epoch"] < config["epochs"] and not 0 < config.get("patience", 0) <= waited:
        raise UserError(
            f"the run stands at epoch {state['epoch']} of {config['epochs']}: --resume it"
        )
    if "environment" not in config:
        raise UserError("the run was trained by an older version: train it again")
    path = folder / "results" / f"{name}.json"
    hyperparameters = {k: v for k, v in config.items() if k not in NOT_HYPERPARAMETERS}
    history = state["history"]
    best = best_row(history)
    row = {
        "seed": config["seed"],
        "epochs": len(history),
        "best_epoch": best["epoch"],
        "seconds": round(history[-1]["seconds"], 1),
        "commit": config["commit"],
        "validation": validation_metrics(best),
        "test": test,
    }
    record = {
        "model": type(model).__name__,
        "dataset": dataset_name(config),
        "config": name,
        "sample": config["dataset"].endswith("-sample"),
        "command": training_command(folder, config, script),
        "hyperparameters": hyperparameters,
        "parameters": parameters,
        "data": {"examples": examples, "sha256": checksums},
        "environment": config["environment"],
        "runs": [row],
    }
    if signatures:
        record["signatures"] = signatures
    if path.is_file():
        try:
            previous = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{path} is damaged ({error}): restore it from git") from None
        known = previous.get("hyperparameters", {})
        for flag in hyperparameters.keys() - known.keys() - set(config["given"]):
            known[flag] = hyperparameters[flag]  # a flag that is younger than the record
        for key in ("dataset", "hyperparameters", "data", "signatures"):
            if previous.get(key) != record.get(key):
                raise UserError(f"{path} is of other {key}: name this recipe with --config")
        record["runs"] += [run for run in previous["runs"] if run["seed"] != row["seed"]]
        record["runs"].sort(key=lambda run: run["seed"])
    path.parent.mkdir(exist_ok=True)
    checkpoint.write_atomically(path, (json.dumps(record, indent=2) + "\n").encode())
    return path, record["runs"][0] is row
