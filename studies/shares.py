"""A study in parts, one process for each: `--part 1/2` here, and `--part 2/2` beside it.

Every part trains its share of the networks and keeps its rows in a folder of its own. The study
started without `--part` then takes these rows, and trains what is missing.
"""

import re
from argparse import ArgumentTypeError
from pathlib import Path

import torch

from common.device import environment, git_commit
from common.errors import printable
from common.results import rows


def part(text: str) -> tuple[int, int]:
    """A flag's value: "1/2" is the first of two parts."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    number, parts = map(int, match.groups()) if match else (0, 0)
    if not 1 <= number <= parts:
        raise ArgumentTypeError(f"{text} is no part such as 1/2")
    return number, parts


def place(runs: Path, name: str, part: tuple[int, int]) -> Path:
    """The file with the rows of a part: in a folder that no other process writes into."""
    number, parts = part
    return runs / f"{name}-{number}-of-{parts}" / "rows.json"


def found(runs: Path, name: str, settings: dict, device: torch.device) -> list[dict]:
    """The rows of all parts that have this commit, these settings, this machine."""
    files = sorted(runs.glob(f"{name}-*-of-*/rows.json"))
    same = {"settings": settings, "environment": environment(device)}
    studies = [study for study in map(rows.read, files) if same.items() <= study.items()]
    commit = git_commit()
    taken = [row for study in studies for row in rows.matching(study, commit=commit)]
    if taken:  # without git, or in a changed clone, a commit does not tell the code
        print(f"{len(taken)} rows come from the parts in {printable(runs)}", flush=True)
    return taken
