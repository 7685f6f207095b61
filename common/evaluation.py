"""Finding a trained run and its weights, and whether the data at hand is what it learned."""

from argparse import Namespace
from pathlib import Path

from common import checkpoint, folders
from common.data import Split
from common.errors import UserError


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


def load_best(model, run_dir: Path, classes: list[str] | None = None) -> None:
    """Put the best checkpoint of the run into `model`, in evaluation mode.

    Raises UserError where the run has learned other `classes` than those of the data at hand.
    """
    path = run_dir / "best.safetensors"
    state = checkpoint.load(path)
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


def facts(data) -> dict:
    """What a checkpoint keeps of the split that a run learns, to know it again."""
    classes = data.classes if isinstance(data, Split) else None
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
