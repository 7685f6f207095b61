"""Result records: one JSON file per recipe in a folder's results/, a row per seed."""

import json
import shlex
import shutil
from argparse import Namespace
from pathlib import Path

from common import checkpoint
from common.data import facts
from common.errors import UserError
from common.folders import NOTES, OWN_DATA, PLACES, dataset_name
from common.history import best_row, validation_metrics
from common.metrics import parameter_count

NOT_HYPERPARAMETERS = {"seed", "device", "data_dir", "dataset"} | PLACES | NOTES  # where, when


def training_command(folder: Path, config: dict, script: str = "train.py") -> str:
    """The command that repeats the run, without its seed and places."""
    words = [f"python {folder.name}/{script}"]
    given = [n for n in config["given"] if n not in NOT_HYPERPARAMETERS or n == "dataset"]
    for name, value in ((name, config[name]) for name in given):
        values = [] if isinstance(value, bool) else value if isinstance(value, list) else [value]
        words.append(("--no-" if value is False else "--") + name.replace("_", "-"))
        words += map(shlex.quote, map(str, values))
    if config["dataset"] in OWN_DATA:
        words += ["--data-dir", shlex.quote(dataset_name(config))]
    return " ".join(words)


def write(
    folder: Path, name: str, config: dict, state: dict, *, model, parameters: int, splits: dict,
    test: dict, script: str = "train.py", signatures: dict[str, str] | None = None,
) -> tuple[Path, bool]:  # fmt: skip
    """Add the run's row to results/`name`.json; a row of the same seed is replaced. Returns the
    file, and whether this seed is its lowest. The record holds sizes and checksums of the `splits`;
    `signatures` say how a metric is counted. Refuses (UserError) a run that did not end, and one of
    another recipe than the file's."""
    splits = {split: data for split, data in splits.items() if data is not None}
    config = {k: Path(v).name if Path(str(v)).is_absolute() else v for k, v in config.items()}
    epoch, history, best = state["epoch"], state["history"], best_row(state["history"])
    waited = len(history) - best["epoch"]
    if epoch < config["epochs"] and not 0 < config.get("patience", 0) <= waited:
        raise UserError(f"the run stands at epoch {epoch} of {config['epochs']}: --resume it")
    if "environment" not in config:
        raise UserError("the run was trained by an older version: train it again")
    path = folder / "results" / f"{name}.json"
    hyperparameters = {k: v for k, v in config.items() if k not in NOT_HYPERPARAMETERS}
    checksums = {k: v for data in splits.values() for k, v in data.checksums.items()}
    row = {"seed": config["seed"], "epochs": len(history), "best_epoch": best["epoch"]}
    row |= {"seconds": round(history[-1]["seconds"], 1), "commit": config["commit"]}
    row |= {"validation": validation_metrics(best), "test": test}
    record = {
        "model": type(model).__name__, "dataset": dataset_name(config), "config": name,
        "sample": config["dataset"].endswith("-sample"),
        "command": training_command(folder, config, script),
        "hyperparameters": hyperparameters, "parameters": parameters,
        "data": {"examples": {k: len(data) for k, data in splits.items()}, "sha256": checksums},
        "environment": config["environment"], "runs": [row],
        **({"signatures": signatures} if signatures else {}),
    }  # fmt: skip
    if path.is_file():
        try:
            previous = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path} is damaged ({error}): restore it from git") from None
        known = previous.get("hyperparameters", {})
        for flag in hyperparameters.keys() - known.keys() - set(config["given"]):
            known[flag] = hyperparameters[flag]  # a flag that is younger than the record
        for key in ("dataset", "hyperparameters", "data", "signatures"):
            if previous.get(key) != record.get(key):
                raise UserError(f"{path} is of other {key}: name this recipe with --config")
        others = [run for run in previous["runs"] if run["seed"] != row["seed"]]
        before = previous["environment"] if others else record["environment"]
        if before != record["environment"]:  # the others' seconds are another machine's
            row["environment"], record["environment"] = record["environment"], before
        record["runs"] = sorted([row, *others], key=lambda run: run["seed"])
    checkpoint.write_json(path, record)
    return path, record["runs"][0] is row


def write_record(
    folder: Path, args: Namespace, run_dir: Path, config: Namespace, model, splits: dict,
    test: dict[str, float], signatures: dict[str, str] | None = None,
) -> None:  # fmt: skip
    """With --record: the run's row, by `write`; for the lowest seed its pictures and samples."""
    name, place = args.config or dataset_name(vars(config)), run_dir / "last.safetensors"
    state, learned = checkpoint.load(place), facts(splits["train"])
    checkpoint.check_same(place, state, learned | {"classes": None}, "train again")
    given = dict(model=model, parameters=parameter_count(model), splits=splits, test=test)
    path, is_first = write(folder, name, vars(config), state, **given, signatures=signatures)
    if is_first:
        for shown in [*run_dir.glob("*.png"), *run_dir.glob("*.gif"), *run_dir.glob("samples.txt")]:
            shutil.copyfile(shown, folder / "results" / f"{name}_{shown.name}")
    print(f"recorded in {path}")
