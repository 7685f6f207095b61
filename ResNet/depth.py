"""What shortcuts are for: `python ResNet/depth.py` (50 minutes on two cores).

Plain and residual networks of 8, 20, 32 and 44 layers (He et al., 2015, section 4.2 and figure 6):
layers, parameters and initial weights are the same, the shortcuts are all that differs. The error
on training images, measured as on validation images, tells whether a deep network cannot learn or
learns too well. Images are shrunk, so that it does not take a day. Rows are kept as they
are found, so a study that was stopped goes on where it was.
"""

import time
from argparse import Namespace
from itertools import product
from pathlib import Path
from statistics import mean

if not __package__:  # started by its path
    import start  # noqa: F401

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common import cli
from common.data import Split
from common.device import machine, seed_everything, select_device
from common.errors import UserError, printable
from common.folders import dataset_name
from common.metrics import metrics_of, parameter_count
from common.plots import new_figure, save
from common.results import rows, tables
from common.results.report import mean_std
from common.schedules import make_schedule
from ResNet.dataset import load_training, or_shapes
from ResNet.dataset.normalize import Normalize
from ResNet.model import CIFAR, BasicBlock, ResNet
from ResNet.train import RECIPES
from ResNet.utils import augmentation
from ResNet.utils.predict import predict_all

FOLDER = Path(__file__).resolve().parent
RECORD = FOLDER / "results" / "compare_depth.json"
DEPTHS = [8, 20, 32, 44]  # 6 n + 2: n blocks of two layers in each of three stages
NETWORKS = ["plain", "residual"]
BATCH, MOMENTUM, WEIGHT_DECAY = 128, 0.9, 1e-4  # the paper's
MEASURED = 2_000  # images of each split that the error is measured on after every epoch
QUICK = dict(dataset="shapes", subset=256, epochs=2, seeds=2, pixels=16)
SETTINGS = ("subset", "epochs", "pixels", "lr")


class PlainBlock(BasicBlock):
    """The same layers with nothing around them: y = relu(F(x))."""

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)))


def make_model(network: str, depth: int, num_classes: int, in_channels: int) -> ResNet:
    """Shortcuts are the paper's option A, without parameters: both kinds have the same."""
    block = PlainBlock if network == "plain" else BasicBlock
    n = (depth - 2) // 6
    return ResNet(block, (n, n, n), num_classes=num_classes, in_channels=in_channels, **CIFAR)


def shrunk(data: Split, pixels: int) -> Split:
    """The images with a side of so many pixels, each the mean of those that it covers."""
    H, W = data.shape[1:]
    if not 4 <= pixels <= min(H, W):
        raise UserError(f"--pixels {pixels}: expected 4 to {min(H, W)}, for images of {H} x {W}")
    size, parts = (pixels, pixels), (part for part, _ in data.in_order(1_000))
    small = [F.interpolate(part.float(), size, mode="area") for part in parts]
    images = torch.cat([part.round().to(torch.uint8) for part in small])
    return Split(images, data.labels, data.classes, data.checksums)


def fit(model: nn.Module, train: Split, args: Namespace, seed: int):
    """As train.py does it, with the paper's optimiser and augmentation; yields after each epoch.

    The learning rate goes up for a tenth of the steps and down along a cosine: the paper's steps
    (0.1, 0.01, 0.001 in 64,000 iterations) are for many more.
    """
    size = min(BATCH, max(2, len(train) // 8))
    changes = {**augmentation.OFF, "crop": max(1, args.pixels // 8), "flip": True}
    augment = augmentation.Augmentation(Namespace(**changes), args.pixels, len(train.classes))
    normalize = Normalize(args.dataset, train.labels.device)
    optimizer = torch.optim.SGD(model.parameters(), args.lr, MOMENTUM, weight_decay=WEIGHT_DECAY)
    steps = args.epochs * train.num_batches(size)
    schedule = make_schedule("cosine", optimizer, args.lr, steps, steps // 10)
    for epoch in range(args.epochs):
        model.train()
        for images, labels in train.batches(size, seed, epoch):
            images, labels = augment(images, labels)
            loss = F.cross_entropy(model(normalize(images)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        if not loss.isfinite():
            raise UserError("the loss is not finite: take a smaller --lr")
        yield


def of(study: dict, network: str, depth: int) -> list[dict]:
    return rows.matching(study, network=network, depth=depth)


def last_error(found: list[dict], split: str) -> list[float]:
    return [row[split]["error"][-1] for row in found]


def table(path: Path = RECORD) -> str:
    """The README's table, by common.results.report."""
    if not path.is_file():
        return "Nothing recorded yet."
    study = rows.read(path)
    lines = [["network", "layers", "training error, %", "validation error, %",
              "training loss, nats", "seeds", "seconds", "parameters"]]  # fmt: skip
    for network, depth in product(NETWORKS, DEPTHS):
        found = of(study, network, depth)
        if found:
            loss = mean_std([row["training"]["loss"][-1] for row in found], 1, 3)
            errors = [mean_std(last_error(found, s), 100, 1) for s in ("training", "validation")]
            seconds = mean(row["seconds"] for row in found)
            lines.append([network, f"{depth}", *errors, loss, f"{len(found)}", f"{seconds:.0f}",
                          f"{found[0]['parameters']:,}"])  # fmt: skip
    settings = study["settings"]
    note = f"{settings['dataset']}, {settings['subset']:,} images of {settings['pixels']} × "
    note += f"{settings['pixels']} pixels, {settings['epochs']} epochs. Both errors without "
    note += "augmentation, in evaluation mode, after the last epoch. Mean ± standard deviation "
    note += f"({machine(study['environment'])})."
    return "\n".join([*tables.table(lines), "", note, "", f"`{study['command']}`", "",
                      "![Errors over epochs and depth](results/depth.png)"])  # fmt: skip


def draw(path: Path, study: dict) -> None:
    """Figure 6 of the paper: the error over the epochs, and after the last one over the depth."""
    figure, axes = new_figure(1, 3, (13, 4), sharey=True)
    for axis, network in zip(axes[0], NETWORKS, strict=False):
        for number, depth in enumerate(DEPTHS):
            for split, line in (("training", "--"), ("validation", "-")):
                curves = [row[split]["error"] for row in of(study, network, depth)]
                if curves:
                    error = 100 * torch.tensor(curves).mean(0)
                    label = f"{depth} layers" if split == "validation" else None
                    axis.plot(range(1, 1 + len(error)), error.tolist(), line, color=f"C{number}",
                              label=label)  # fmt: skip
        axis.set(xlabel="epoch", title=f"{network}: validation (lines), training (dashes)")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.legend()
    for network, colour in zip(NETWORKS, ("C3", "C0"), strict=True):
        for split, line in (("training", "--"), ("validation", "-")):
            depths = [depth for depth in DEPTHS if of(study, network, depth)]
            found = [last_error(of(study, network, depth), split) for depth in depths]
            means = [100 * mean(errors) for errors in found]
            axes[0, 2].plot(depths, means, line, color=colour, label=f"{network}, {split}")
            for depth, errors in zip(depths, found, strict=True):
                axes[0, 2].plot([depth] * len(errors), [100 * e for e in errors], "o", ms=4,
                                color=colour, alpha=0.5)  # fmt: skip
    axes[0, 0].set_ylabel("error, %")
    axes[0, 2].set_xticks(DEPTHS)
    axes[0, 2].set(xlabel="layers", title="after the last epoch")
    axes[0, 2].legend()
    for axis in axes.flat:
        axis.grid(alpha=0.3)
    save(figure, path)


def main(argv=None):
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--dataset", choices=RECIPES, help="what to learn (default: cifar10)")
    add("--data-dir", type=cli.place, help="where the data lies; before $PLAYGROUND_DATA")
    add("--subset", type=cli.positive_int, help="images to train on (default: 10,000 at most)")
    add("--epochs", type=cli.positive_int, default=16, help="passes over them")
    add("--pixels", type=cli.positive_int, default=16, help="side that images are shrunk to")
    add("--lr", type=cli.positive, default=0.1, help="learning rate, the schedule's peak")
    add("--seeds", type=cli.positive_int, default=3, help="trainings of each network: 0, 1, …")
    add("--device", default="auto", help="auto, cpu, cuda or mps")
    add("--quick", action="store_true", help="a few made-up images, to see that it works")
    add("--output", metavar="FILE", help="the rows (default: runs/depth.json)")
    args = parser.parse_args(argv)
    device = select_device(args.device)
    if args.quick:
        vars(args).update(QUICK)
    else:
        named, dataset = args.dataset is not None, args.dataset or "cifar10"
        args.dataset = or_shapes(dataset, named, args.data_dir)
    path = Path(args.output or FOLDER / "runs" / ("quick" * args.quick) / "depth.json")
    args.image_size, args.precision = None, "float32"
    args.flip_test = args.shift_test = args.refit = False
    train, validation = load_training(args)
    args.subset = args.subset or min(10_000, len(train))
    train = shrunk(train.subset(args.subset), args.pixels).to(device)
    validation = shrunk(validation, args.pixels).to(device)
    splits = {"training": train, "validation": validation}
    parts = {name: data.subset(min(MEASURED, len(data))) for name, data in splits.items()}

    def make(network: str, depth: int, seed: int) -> dict:
        seed_everything(seed)
        model = make_model(network, depth, len(train.classes), train.shape[0])
        model = model.to(device=device, memory_format=torch.channels_last)
        found, seconds = {name: {"error": [], "loss": []} for name in parts}, time.perf_counter()
        for _ in fit(model, train, args, seed):
            for name, part in parts.items():
                metrics = metrics_of(*predict_all(model, part, args))
                found[name]["error"].append(round(1 - metrics["accuracy"], 6))
                found[name]["loss"].append(metrics["loss"])
        seconds = time.perf_counter() - seconds
        errors = {name: f"{values['error'][-1]:.1%}" for name, values in found.items()}
        print(f"seed {seed}  {network:8}  {depth:2} layers  {seconds:4.0f} s  training error "
              f"{errors['training']}, validation {errors['validation']}", flush=True)  # fmt: skip
        return {**found, "seconds": round(seconds, 1), "parameters": parameter_count(model)}

    kinds = product(range(args.seeds), DEPTHS, NETWORKS)
    keys = [dict(network=network, depth=depth, seed=seed) for seed, depth, network in kinds]
    settings = {name: getattr(args, name) for name in SETTINGS}
    words = ["--quick"] if args.quick else [f"--{name} {v}" for name, v in settings.items()]
    if not args.quick:
        folder = [f"--data-dir {dataset_name(vars(args))}"] if args.dataset == "folder" else []
        words = [f"--dataset {args.dataset}", *folder, *words]
    settings = {"dataset": dataset_name(vars(args)), **settings}
    command = " ".join(["python ResNet/depth.py", *words])
    study = rows.collect(path, settings, command, device, keys, make)
    draw(path.with_name("depth.png"), study)
    print(f"\n{table(path)}\n\nrows in {printable(path)}, picture beside them")


if __name__ == "__main__":
    cli.entry(main)
