"""Finding a trained run and its weights, for test.py and whatever else uses a network."""

import re
from argparse import Namespace
from pathlib import Path

from common import checkpoint, folders
from common.errors import UserError, reading


def find_trained(folder: Path, args: Namespace, parser, takes: str = "", **wanted) -> tuple:
    """The run that `args` name, or the latest with a value `wanted` of each flag, and its flags, by
    train.py's `parser`; --data-dir may be another. An error says how long a training `takes`."""
    if not re.fullmatch(r"(?!compare)\w[\w. -]*", getattr(args, "config", None) or "a"):
        raise UserError(f"--config {args.config}: letters, digits, . - _, and not compare first")
    takes = f" ({takes})" if takes else ""
    run_dir = folders.find_run(folder / "runs", args.run_dir, "best.safetensors", takes, **wanted)
    config = Namespace(**folders.read_flags(run_dir, "best.safetensors", folder, parser))
    for name, fit in wanted.items():
        if getattr(config, name) not in fit:
            what = f"{run_dir} is a run of --{name} {getattr(config, name)}: name one of --{name}"
            train = f"`python {folder.name}/train.py --{name} {fit[0]}`{takes}"
            raise UserError(f"{what} {' or '.join(fit)}, or train it with {train}")
    config.data_dir = getattr(args, "data_dir", None) or config.data_dir
    return run_dir, config


def load_best(model, run_dir: Path, classes: list[str] | None = None, checksums=()) -> None:
    """Put the best checkpoint of the run into `model`, in evaluation mode.

    Raises UserError where the run has learned other `classes` than those of the data at hand, or
    other content of a file, by its `checksums`. A test split may be cut from what was learned.
    """
    path = run_dir / "best.safetensors"
    state, here = checkpoint.load(path), {"classes": classes, "checksums": dict(checksums)}
    with reading(path):
        checkpoint.check_same(path, state, here, "train again")
        checkpoint.restore(model, best_weights(state), path, "network")
    model.eval()


def best_weights(state: dict) -> dict:
    """The network's weights in a checkpoint: their moving average where the run kept one."""
    if state.get("average"):  # torch.optim.swa_utils.AveragedModel's
        items, own = state["average"].items(), "module."
        return {name.removeprefix(own): w for name, w in items if name.startswith(own)}
    return state.get("model", {})
