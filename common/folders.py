"""Run folders: making a new one, finding an earlier one, and its config.json."""

import json
import os
import re
import sys
from argparse import ArgumentTypeError, Namespace
from contextlib import ExitStack, suppress
from pathlib import Path

from common import checkpoint, lock
from common.errors import UserError, printable, reading
from common.files import is_file, read_file

OWN_DATA = ("folder", "csv")  # datasets that are what lies in --data-dir, and called like it
FREE = {"epochs", "device", "data_dir", "src", "tgt", "test_src", "test_tgt"}  # on --resume
PLACES = {"run_dir", "resume", "help"}  # flags that config.json does not hold
NOTES = {"given", "commit", "environment"}  # what it holds beside flags
RUN_FILES = ("history.csv", "last.safetensors", "best.safetensors")


def dataset_name(config: dict) -> str:
    """What runs and records call the dataset: for --dataset folder or csv, the folder's name."""
    own = config["dataset"] in OWN_DATA
    return printable(Path(config["data_dir"]).name if own else config["dataset"])


def named(run_dir: str) -> Path:
    """The folder of --run-dir. Raises UserError for none, and for one that no terminal can show."""
    if not run_dir or printable(run_dir) != run_dir:
        raise UserError(f"--run-dir {run_dir!r}: name a folder that a terminal can show")
    return Path(run_dir)


def new_run(runs: Path, run_dir: str | None, dataset: str) -> Path:
    """Make the folder of a new run: `run_dir`, which must hold no run yet, or runs/NNNN-dataset."""
    try:
        if run_dir is not None:
            path = named(run_dir)
            check_unused(path)
            path.mkdir(parents=True, exist_ok=True)
            return path
        runs.mkdir(exist_ok=True)
        while True:
            path = runs / f"{max(numbered(runs), default=(0,))[0] + 1:04d}-{dataset}"
            with suppress(FileExistsError):  # another run started at the same moment
                path.mkdir()
                return path
    except OSError as error:
        raise UserError(f"cannot make the run folder: {error}") from None


def check_unused(path: Path) -> None:
    """Raises UserError for a folder that holds a run, or another program's config.json."""
    if any((path / name).exists() for name in RUN_FILES):
        raise UserError(f"{path} holds a run already: add --resume, or name another folder")
    if is_file(path / "config.json"):
        read_config(path)


def take(runs: Path, args: Namespace, dataset: str, held: ExitStack) -> Path:
    """The folder of the run that `args` start or resume, while `held` is open this process's alone.
    Raises UserError where another process has it, or nothing can be written."""
    path = Path(args.run_dir) if args.resume else new_run(runs, args.run_dir, dataset)
    held.enter_context(lock.hold(path))
    checkpoint.remove_leftovers(path)
    if not args.resume:
        check_unused(path)  # as another process may have used it meanwhile
    return path


def numbered(runs: Path) -> list[tuple[int, Path]]:
    names = os.listdir(runs) if runs.is_dir() else []
    return [(int(name.split("-")[0]), runs / name) for name in names if re.match(r"\d{4,}-", name)]


def find_run(runs: Path, run_dir: str | None, needed: str, takes: str = "", **wanted) -> Path:
    """The folder `run_dir`, or the latest run below `runs` that holds the file `needed` and a value
    `wanted` of each flag (task=["lm"]). Says if it steps over a later one. UserError for none."""
    if run_dir is not None:
        if not is_file(named(run_dir) / needed):
            young = is_file(Path(run_dir) / "config.json")
            why = "the run has not come so far as to have a" if young else "it has no"
            raise UserError(f"no run to use in {run_dir}: {why} {needed}")
        return Path(run_dir)
    young = None
    for _, path in sorted(numbered(runs), reverse=True):
        if not is_file(path / needed):
            young = young or path
        elif all(read_config(path).get(flag) in fit for flag, fit in wanted.items()):
            if young:
                print(f"{young} has no {needed} yet: taking {path}", file=sys.stderr)
            return path
    flags = "".join(f" --{flag} {fit[0]}" for flag, fit in wanted.items() if len(fit) == 1)
    again = f"name a --run-dir, or train one with `python {runs.parent.name}/train.py{flags}`"
    raise UserError(f"no run{' of' * bool(flags)}{flags} with a {needed} in {runs}: {again}{takes}")


def write_config(run_dir: Path, folder: Path, flags: dict) -> None:
    """Write the run's config.json: the model folder that made it, and the flags."""
    flags = {k: v for k, v in flags.items() if k not in PLACES}
    checkpoint.write_json(run_dir / "config.json", {"folder": folder.name, **flags})


def read_config(run_dir: Path) -> dict:
    """What the run's config.json holds. Raises UserError when it cannot be read."""
    path = run_dir / "config.json"
    with reading(path, "cannot be read"):
        config = json.loads(read_file(path, "use another run")[0])
    if not isinstance(config, dict) or "dataset" not in config:
        raise UserError(f"{path} holds no run's flags: use another run")
    return config


def shaping(flags: dict) -> dict:
    """The flags that decide what is learned; files may move, and what is in them is checked."""
    moving = {k for k, v in flags.items() if isinstance(v, str) and os.path.isabs(v)}
    return {k: v for k, v in flags.items() if k not in FREE | PLACES | NOTES | moving}


def read_flags(run_dir: Path, needed: str, folder: Path, parser) -> dict:
    """What a run of `folder` was trained with, by its config.json; younger flags have defaults.
    Raises UserError for a run that another folder made, for a value that train.py's `parser` would
    not take, and for one that contradicts the checkpoint `needed`."""
    path, config = run_dir / "config.json", read_config(run_dir)
    maker = config.pop("folder", folder.name)  # early runs do not say it
    if maker != folder.name:
        raise UserError(f"{run_dir} is a run of {maker!r}, not of {folder.name}: name another one")
    actions = {action.dest: action for action in parser._actions}
    given, name = config.setdefault("given", []), "dataset"
    try:
        flags = parser.defaults(check_flag(actions[name], config[name]), config.get("model"))
        flags |= {"shift_test": False} if "shift_test" in flags else {}  # early runs looked once
        for name in sorted(config.keys() - NOTES):
            if name not in actions.keys() - PLACES:
                raise ValueError(f"no flag of {folder.name}: another folder made the run")
            config[name] = check_flag(actions[name], config[name], flags[name])
        name = "given"
        if not isinstance(given, list) or not all(map(list(actions).__contains__, given)):
            raise ValueError("expected names of flags")
    except (ValueError, ArgumentTypeError) as error:
        raise UserError(f"{path}: {json.dumps(name)[:60]}: {str(error)[:200]}") from None
    flags |= {"commit": None, **config}
    trained = checkpoint.load(run_dir / needed, "model")
    with reading(run_dir / needed):
        for name, value in trained.get("flags", {}).items():
            if flags.get(name, value) != value:
                why = f"{json.dumps(name)} is {json.dumps(flags[name])}"
                raise UserError(f"{path}: {why}, but {needed} was trained with {json.dumps(value)}")
    dataset = trained.get("dataset", flags["dataset"])  # early runs have no more than this
    if flags["dataset"] not in (dataset, *OWN_DATA):
        raise UserError(f"{path}: dataset is {flags['dataset']}, but {needed} is of {dataset}")
    return flags


def check_flag(action, value, default=...):
    """A value of config.json as the flag's own type and choices take it; None if that is `default`.
    Raises ValueError or ArgumentTypeError, which say what is expected."""
    if value is None and default is None:
        return None
    if action.nargs not in (None, 0):
        least = action.nargs if isinstance(action.nargs, int) else int(action.nargs == "+")
        most = action.nargs if isinstance(action.nargs, int) else 1_000
        if not isinstance(value, list) or not least <= len(value) <= most:
            raise ValueError(f"expected a list, got {json.dumps(value)}")
        return [check_one(action, each) for each in value]
    return check_one(action, value)


def check_one(action, value):
    if getattr(action.type, "numeric", False):
        return action.type(json.dumps(value))
    if action.nargs == 0:
        right, expected = isinstance(value, bool), "true or false"
    else:
        known = list(action.choices or [value])
        right = isinstance(value, str) and value in known and "\0" not in value
        expected = f"one of {', '.join(known)}" if action.choices else "a text"
    if not right:
        raise ValueError(f"expected {expected}, got {json.dumps(value)}")
    return value
