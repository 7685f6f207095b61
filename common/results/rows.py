"""The rows of a study, kept in a file as they are found: what was stopped goes on from there."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from common import checkpoint, lock
from common.device import environment, git_commit
from common.errors import UserError, printable


def read(path: Path) -> dict:
    """The study in a file: its settings, command, environment and rows."""
    try:
        study = json.loads(path.read_text(encoding="utf-8"))
        study["settings"], study["rows"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged or no study ({error!r}): name another") from None
    return study


def write(path: Path, study: dict) -> None:
    """A row on a line: what is added is all that git shows."""
    head = json.dumps({k: v for k, v in study.items() if k != "rows"}, indent=2)[:-2]
    rows = ",\n".join(f"    {json.dumps(row)}" for row in study["rows"])
    checkpoint.write_atomically(path, f'{head},\n  "rows": [\n{rows}\n  ]\n}}\n'.encode())


def matching(study: dict, **key) -> list[dict]:
    """The rows of a study that have these values."""
    return [row for row in study["rows"] if key.items() <= row.items()]


def collect(
    path: Path, settings: dict, command: str, device: torch.device, keys: Iterable[dict],
    make: Callable[..., dict], **facts: Callable[[], object],
) -> dict:  # fmt: skip
    """The study in the file `path`, with a row for each of `keys`, such as {"depth": 8, "seed": 0}.

    What a row holds besides is found by `make(depth=8, seed=0)`, if it is not there yet; and before
    all rows the `facts`, which are of the whole study. Every row names its commit, and its machine
    where that is not the study's first. Raises UserError for the file of another study.
    """
    if path.suffix != ".json":  # of another, a picture might take the place
        raise UserError(f"--output {path}: the name of a file of rows ends in .json")
    commit, machine = git_commit(), environment(device)
    path.parent.mkdir(parents=True, exist_ok=True)
    with lock.hold(path.parent):
        study = read(path) if path.is_file() else {"settings": settings, "rows": []}
        if study["settings"] != settings:
            raise UserError(f"{path} is of other flags, {study['settings']}: name another --output")
        study = {"environment": machine, **study, "command": command}
        elsewhere = {} if study["environment"] == machine else {"environment": machine}
        write(path, study)
        for name in [name for name in facts if name not in study]:
            study[name] = facts[name]()
            write(path, study)
        missing = {str(key): key for key in keys if not matching(study, **key)}.values()  # once
        if not missing:
            print(f"{printable(path)} has all rows: nothing is measured (anew: another --output)")
        for key in missing:
            study["rows"].append({**key, **make(**key), "commit": commit, **elsewhere})
            write(path, study)
    return study
