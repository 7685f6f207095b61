"""What every test.py does around its own pictures: find the run, load it, record the result."""

import shutil
from argparse import Namespace
from pathlib import Path

from common import checkpoint, folders, record
from common.errors import UserError
from common.metrics import parameter_count


def find_trained(folder: Path, args: Namespace, recipes: dict) -> tuple[Path, Namespace]:
    """The run that `args` name (default: the latest) and the flags it was trained with.

    `recipes` fill in for flags that are younger than the run; --data-dir may differ from the run's.
    """
    run_dir = folders.find_run(folder / "runs", args.run_dir, "best.safetensors")
    config = folders.read_config(run_dir)
    if config["dataset"] not in recipes:
        raise UserError(f"{run_dir} is a run on {config['dataset']}, which {folder.name} lacks")
    config = Namespace(**{**recipes[config["dataset"]], **config})
    config.data_dir = getattr(args, "data_dir", None) or config.data_dir
    return run_dir, config


def load_best(model, run_dir: Path) -> None:
    """Put the best checkpoint of the run into `model`, in evaluation mode."""
    path = run_dir / "best.safetensors"
    checkpoint.restore(model, best_weights(checkpoint.load(path)), path, "network")
    model.eval()


def best_weights(state: dict) -> dict:
    """The network's weights in a checkpoint: their moving average where the run kept one."""
    if state.get("average"):  # torch.optim.swa_utils.AveragedModel's
        prefix = "module."
        items = state["average"].items()
        return {name[len(prefix) :]: w for name, w in items if name.startswith(prefix)}
    return state.get("model", {})


def write_record(
    folder: Path, args: Namespace, run_dir: Path, config: Namespace, model, splits: dict,
    test: dict[str, float], signatures: dict[str, str] | None = None,
) -> None:  # fmt: skip
    """With --record: the run's row in results/, and its pictures beside it for the lowest seed.

    `splits` are the Splits by name (or None), whose sizes and checksums the record holds;
    `signatures` say how a metric was counted, where that is a matter of choice.
    """
    name = args.config or folders.dataset_name(vars(config))
    splits = {split: data for split, data in splits.items() if data is not None}
    path, is_first = record.write(
        folder, name, vars(config), checkpoint.load(run_dir / "last.safetensors"),
        model=model, parameters=parameter_count(model),
        examples={split: len(data) for split, data in splits.items()},
        checksums={k: v for data in splits.values() for k, v in data.checksums.items()},
        test=test, signatures=signatures,
    )  # fmt: skip
    if is_first:
        for picture in sorted([*run_dir.glob("*.png"), *run_dir.glob("*.gif")]):
            shutil.copyfile(picture, folder / "results" / f"{name}_{picture.name}")
    print(f"recorded in {path}")
