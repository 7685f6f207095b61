"""What needs no training to be said of twins: results and lines of code.

The results are those that the folders' records hold. Twins are compared where both have a record
of one name, and a flag that differs is named. The difference has a standard error where both have
at least two seeds:  √(s²/n + s′²/n′), with the sample variances s² and s′² and n and n′ seeds
(Welch, 1938). It takes the trainings for independent. Twins share their seeds, which draw the same
weights and batches, so it is rather too large than too small.

Core lines are those of the modules that a training step of the pair goes through: model, layers,
loss, optimiser and loop, with all options that these offer. The rest of a folder is either in
modules that both twins hold, such as `dataset/`, or in those that one of them has alone.
"""

import json
from pathlib import Path
from statistics import mean, variance
from typing import NamedTuple

from common.data import ROOT
from common.results.compare_steps import PAIRS
from common.results.report import HEADLINES
from common.results.tables import lines_of_code

ROLES = ("model", "layers", "loss", "optimiser", "loop")
BY_HAND = {
    "model": ["model.py"], "layers": ["utils/layers.py"], "loss": ["utils/losses.py"],
    "optimiser": ["utils/optim.py"], "loop": ["train.py"],
}  # fmt: skip
BY_TORCH = {
    "model": ["model.py"], "layers": [], "loss": [],
    "optimiser": ["utils/optim.py", "utils/muon.py"], "loop": ["train.py"],
}  # fmt: skip
TRANSFORMER = {
    "Transformer_Manual": {**BY_HAND, "layers": [
        "utils/layers.py", "utils/attention.py", "utils/blocks.py", "utils/embedding.py",
        "utils/modern.py",
    ]},
    "Transformer_Torch": {
        **BY_TORCH, "layers": ["utils/modern.py"], "loop": ["train.py", "utils/parts.py"],
    },
}  # fmt: skip
CORE = {  # of the folders of each pair, the modules that are core; torch.nn is nobody's
    "MLP": {"MLP_Manual": BY_HAND, "MLP_Torch": {**BY_TORCH, "loss": ["utils/losses.py"]}},
    "CNN": {
        "CNN_Manual": {**BY_HAND, "loop": ["train.py", "utils/augment.py"]},
        "CNN_Torch": {**BY_TORCH, "loop": ["train.py", "utils/augment.py"]},
    },
    "Transformer": TRANSFORMER,
    "LanguageModel": TRANSFORMER,
}


class Lines(NamedTuple):
    core: dict[str, int]  # by role
    copied: int  # in modules that the other twin holds, too, and that are not core
    alone: int  # in the other modules


def count_lines(folder: Path, core: dict[str, list[str]], other: Path) -> Lines:
    """Lines of code of a folder, `core` of these modules; `other` is its twin."""
    roles = {role: sum(lines_of_code(folder / name) for name in core[role]) for role in ROLES}
    listed = {folder / name for names in core.values() for name in names}
    copied = alone = 0
    for path in set(folder.rglob("*.py")) - listed:
        if (other / path.relative_to(folder)).is_file():
            copied += lines_of_code(path)
        else:
            alone += lines_of_code(path)
    return Lines(roles, copied, alone)


def lines_of_twins(name: str) -> dict[str, Lines]:
    """Of both folders of a pair."""
    folders = PAIRS[name][:2]
    return {
        folder: count_lines(ROOT / folder, CORE[name][folder], ROOT / other)
        for folder, other in zip(folders, reversed(folders), strict=True)
    }


class Difference(NamedTuple):
    """Of twins' results: by hand less PyTorch."""

    config: str
    metric: str
    manual: list[float]  # a value for each seed
    torch: list[float]
    flags: dict[str, tuple]  # that are not the same, with both values

    @property
    def mean(self) -> float:
        return mean(self.manual) - mean(self.torch)

    @property
    def standard_error(self) -> float | None:
        if min(len(self.manual), len(self.torch)) < 2:
            return None
        return sum(variance(values) / len(values) for values in (self.manual, self.torch)) ** 0.5


def load(folder: Path, network: str) -> dict[str, dict]:
    """The records of a network in a folder, by name."""
    paths = [p for p in folder.glob("results/*.json") if not p.name.startswith("compare")]
    records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(paths)]
    return {r["config"]: r for r in records if r["model"] == network and not r["sample"]}


def differences(name: str, root: Path = ROOT) -> list[Difference]:
    """Of every result on the test split that both twins recorded under one name."""
    manual, native, network = PAIRS[name][:3]
    ours, theirs = (load(root / folder, network) for folder in (manual, native))
    found = []
    for config in ours.keys() & theirs.keys():
        a, b = ours[config], theirs[config]
        tests = [[run["test"] for run in record["runs"]] for record in (a, b)]
        metric = next(name for name in HEADLINES if all(name in t for both in tests for t in both))
        values = [[test[metric] for test in both] for both in tests]
        flags = {k: (a["hyperparameters"][k], b["hyperparameters"][k])
                 for k in sorted(a["hyperparameters"].keys() & b["hyperparameters"].keys())
                 if a["hyperparameters"][k] != b["hyperparameters"][k]}  # fmt: skip
        found.append(Difference(config, metric, *values, flags))
    return sorted(found)
