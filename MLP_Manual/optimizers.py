"""Which optimiser, and which learning rate? `python MLP_Manual/optimizers.py` (45 minutes).

One network, every optimiser, every rate of one grid, several seeds. Each training is a row of a
file as soon as it ends: killed and started again, the study goes on with the next one.
"""

import statistics
import time
from argparse import Namespace
from itertools import product
from pathlib import Path

if not __package__:  # started by its path
    import start  # noqa: F401

import torch

from common import cli
from common.data import Split
from common.device import machine, seed_everything, select_device, synchronize
from common.errors import printable
from common.results import rows, tables
from MLP_Manual.dataset import load_training, mnist
from MLP_Manual.model import MLP
from MLP_Manual.train import evaluate
from MLP_Manual.utils.losses import CrossEntropy
from MLP_Manual.utils.optim import OPTIMIZERS, make_schedule
from MLP_Manual.utils.optimizer_plots import best_rates, draw_study, reached

FOLDER = Path(__file__).resolve().parent
RATES = [round(10 ** (k / 2), 7) for k in range(-10, 2)]  # 0.00001 to 3.16, two a decade
WEIGHT_DECAY = {"adamw": 0.05, "muon": 0.05}  # those whose decay is not the gradient's
RECORD = FOLDER / "results" / "compare_optimizers.json"
POINTS = 10  # of the curve of training loss, in an epoch


def make_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--seeds", type=cli.positive_int, default=3, help="trainings of each kind: seeds 0, 1, …")
    add("--epochs", type=cli.positive_int, default=3, help="passes of each over the training split")
    add("--device", default="auto", help="auto, cpu, cuda or mps")
    add("--data-dir", type=cli.place, help="where the data lies; before $PLAYGROUND_DATA")
    add("--quick", action="store_true", help="two minutes: a sample, one seed, four rates")
    add("--output", metavar="FILE", help="the rows (default: runs/optimizers.json)")
    return parser


def make_network(data: Split) -> MLP:
    """Three hidden layers of 256 units: plain, so that nothing but the optimiser helps."""
    sizes = (data.inputs.shape[1], (256, 256, 256), len(data.classes))
    model = MLP(*sizes, batch_norm=False, dropout=0.0, input_dropout=0.0)
    return model.to(device=data.inputs.device)


def fit(name: str, lr: float, seed: int, epochs: int, train: Split, held_out: Split) -> dict:
    """A training from `seed`, its rate going down to 0 in a cosine: what it reached, and the mean
    loss of every tenth of an epoch. Where the loss is no number any more, that is the end."""
    seed_everything(seed)
    model, criterion = make_network(train), CrossEntropy()
    optimizer = OPTIMIZERS[name](model, lr, WEIGHT_DECAY.get(name, 0.0))
    per_epoch = train.num_batches(128)
    schedule = make_schedule("cosine", lr, epochs * per_epoch)
    model.train()
    step, losses, started = 0, [], time.monotonic()
    for epoch in range(epochs):
        for inputs, labels in train.batches(128, seed, epoch):
            optimizer.lr = schedule(step)
            losses.append(criterion.forward(model.forward(inputs), labels).item())
            if not losses[-1] < 1e4:  # NaN, too
                return {"diverged": True, "step": step, "seconds": time.monotonic() - started}
            model.backward(criterion.backward())
            optimizer.step()
            step += 1
    seconds, found = time.monotonic() - started, evaluate(model, held_out)
    if not found["loss"] < 1e4:
        return {"diverged": True, "step": step, "seconds": seconds}
    edges = [round(k * per_epoch / POINTS) for k in range(epochs * POINTS + 1)]
    parts = [losses[a:b] for a, b in zip(edges, edges[1:], strict=False) if b > a]
    curve = [round(statistics.fmean(part), 6) for part in parts]
    return {"diverged": False, **found, "seconds": seconds, "curve": curve}


def time_steps(train: Split, steps: int) -> dict[str, dict]:
    """Of every optimiser, in turns: the median time of a whole step and of the optimiser's part,
    how many numbers it keeps for each parameter, and how many bytes that is."""
    inputs, labels = train.inputs[:128], train.labels[:128]
    learners = {name: OPTIMIZERS[name](make_network(train), 1e-4) for name in OPTIMIZERS}
    times = {name: ([], []) for name in learners}
    criterion = CrossEntropy()
    for _ in range(steps):
        for name, optimizer in learners.items():
            synchronize(inputs.device)
            begin = time.perf_counter()
            criterion.forward(optimizer.model.forward(inputs), labels)
            optimizer.model.backward(criterion.backward())
            synchronize(inputs.device)
            middle = time.perf_counter()
            optimizer.step()
            synchronize(inputs.device)
            end = time.perf_counter()
            times[name][0].append(end - begin)
            times[name][1].append(end - middle)
    found = {}
    for name, optimizer in learners.items():
        tensors = [t for kind in optimizer.buffers.values() for t in kind.values()]
        kept, size = (sum(f(t) for t in tensors) for f in (torch.numel, lambda t: t.nbytes))
        parameters = sum(p.numel() for p in optimizer.model.parameters().values())
        whole, own = (round(1e3 * statistics.median(t), 3) for t in times[name])
        found[name] = {"step_milliseconds": whole, "own_milliseconds": own,
                       "kept": round(kept / parameters, 2), "bytes": size}  # fmt: skip
    return found


def jobs(settings: dict, seeds: int) -> list[dict]:
    """All trainings of the study; a seed is through before the next begins."""
    kinds = product(range(seeds), settings["datasets"], OPTIMIZERS, settings["rates"])
    return [dict(dataset=dataset, optimizer=name, lr=lr, seed=seed)
            for seed, dataset, name, lr in kinds]  # fmt: skip


def study(path: Path, args: Namespace, device: torch.device) -> dict:
    """Do what is left to do, a row at a time, and give the whole record."""
    first = "mnist-sample" if args.quick else mnist.or_sample("mnist", False, FOLDER, args.data_dir)
    datasets = [first] if first != "mnist" else [first, "fashion-mnist"]
    splits = {
        name: [split.to(device) for split in load_training(name, args.data_dir)]
        for name in datasets
    }
    settings = {
        "datasets": datasets,
        "rates": RATES[2::3] if args.quick else RATES,
        "epochs": args.epochs,
        "steps_per_epoch": {name: train.num_batches(128) for name, (train, _) in splits.items()},
    }

    def make(dataset: str, optimizer: str, lr: float, seed: int) -> dict:
        # the velocity of a dead network fades into subnormal numbers: a step takes 15 times as long
        torch.set_flush_denormal(True)
        found = fit(optimizer, lr, seed, args.epochs, *splits[dataset])
        torch.set_flush_denormal(False)
        ends = "diverges" if found["diverged"] else f"{found['accuracy']:.2%}"
        print(f"{dataset:>13} {optimizer:>8} {lr:<9.2g} seed {seed}  {ends:>8}  "
              f"{found['seconds']:5.1f} s", flush=True)  # fmt: skip
        return found

    words = "--quick" if args.quick else f"--epochs {args.epochs}"
    return rows.collect(
        path, settings, f"python MLP_Manual/optimizers.py {words}", device,
        jobs(settings, args.seeds), make,
        steps=lambda: time_steps(splits[first][0], 20 if args.quick else 300),
    )  # fmt: skip


def table(path: Path = RECORD) -> str:
    """The README's table, by common.results.report."""
    if not path.is_file():
        return "Nothing recorded yet."
    record = rows.read(path)
    lines, settings = [], record["settings"]
    for dataset in settings["datasets"]:
        cells = [[dataset, "best rate", "validation accuracy, %", "with a third of it",
                  "three times", "a tenth", "ten times", "step, ms",
                  "kept per parameter"]]  # fmt: skip
        for name, best in best_rates(record, dataset).items():
            at = settings["rates"].index(best)
            near = [reached(record, dataset, name, at + k) for k in (0, -1, 1, -2, 2)]
            steps = record["steps"][name]
            steps = [str(steps["step_milliseconds"]), str(steps["kept"])]
            cells.append([name, f"{best:.2g}", *near, *steps])
        lines += [*tables.table(cells), ""]
    diverged = sum(row["diverged"] for row in record["rows"])
    seeds = len({row["seed"] for row in record["rows"]})
    note = (
        f"{len(record['rows'])} trainings of {settings['epochs']} epochs, {diverged} of which "
        f"diverged; mean ± standard deviation of {seeds} seeds. The best rate is the "
        "one with the highest validation accuracy, a little too good. A diverged run counts as "
        f"10 %. The test split was not read ({machine(record['environment'])})."
    )
    lines += [note, "", f"`{record['command']}`"]
    return "\n".join(lines)


def main(argv=None):
    args = make_parser().parse_args(argv)
    device = select_device(args.device)
    if args.quick:
        args.epochs = 1
        args.seeds = 1
    path = Path(args.output or FOLDER / "runs" / ("quick" * args.quick) / "optimizers.json")
    draw_study(path.with_name("optimizers.png"), study(path, args, device))
    print(f"\n{table(path)}\n\nrows in {printable(path)}, picture beside them")


if __name__ == "__main__":
    cli.entry(main)
