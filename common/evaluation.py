"""Finding a trained run and its weights, for test.py and whatever else uses a network."""

from argparse import Namespace
from pathlib import Path

from common import checkpoint, folders
from common.checkpoint import check_classes
from common.errors import UserError, reading


def find_trained(folder: Path, args: Namespace, parser, takes: str = "", **wanted) -> tuple:
    """The run that `args` name (default: the latest with the flags `wanted`), and the flags that it
    was trained with, by train.py's `parser`; --data-dir may differ from the run's. Without a run,
    the error says how long it `takes` to train one."""
    takes = f" ({takes})" if takes else ""
    run_dir = folders.find_run(folder / "runs", args.run_dir, "best.safetensors", takes, **wanted)
    config = Namespace(**folders.read_flags(run_dir, "best.safetensors", folder, parser))
    for name, value in wanted.items():
        if getattr(config, name) != value:
            raise UserError(
                f"{run_dir} is a run of --{name} {getattr(config, name)}: name one of --{name} "
                f"{value}, or train it with `python {folder.name}/train.py --{name} {value}`"
            )
    config.data_dir = getattr(args, "data_dir", None) or config.data_dir
    return run_dir, config


def load_best(model, run_dir: Path, classes: list[str] | None = None) -> None:
    """Put the best checkpoint of the run into `model`, in evaluation mode.

    Raises UserError where the run has learned other `classes` than those of the data at hand.
    """
    path = run_dir / "best.safetensors"
    state = checkpoint.load(path)
    with reading(path):
        if "data" in state:  # older runs do not say
            check_classes(path, state["data"]["classes"], classes)
        checkpoint.restore(model, best_weights(state), path, "network")
    model.eval()


def best_weights(state: dict) -> dict:
    """The network's weights in a checkpoint: their moving average where the run kept one."""
    if state.get("average"):  # torch.optim.swa_utils.AveragedModel's
        prefix = "module."
        items = state["average"].items()
        return {name[len(prefix) :]: w for name, w in items if name.startswith(prefix)}
    return state.get("model", {})
