"""torch.optim beside the optimisers by hand: `python MLP_Torch/torch_optim.py` (an hour).

MLP_Manual/optimizers.py trains one network with every optimiser at every rate of a grid. This
script trains the same network with torch.optim, on the same grid, from the same initial weights and
with the same batches, and compares the two curves of training loss. Rows are kept as they are
found, so a study that was stopped goes on where it was.
"""

import math
import statistics
import sys
import time
from pathlib import Path

if not __package__:  # started by its path
    import start  # noqa: F401

import torch
from torch import nn

from common import cli
from common.data import Split
from common.device import environment, machine, seed_everything, select_device, synchronize
from common.errors import UserError, printable
from common.results import rows, tables
from common.results.report import mean_std
from common.schedules import make_schedule
from MLP_Torch.dataset import load_training
from MLP_Torch.model import MLP
from MLP_Torch.train import evaluate
from MLP_Torch.utils.optim import OPTIMIZERS, make_optimizer
from MLP_Torch.utils.torch_optim_plots import best_rates, draw

FOLDER = Path(__file__).resolve().parent
RECORD = FOLDER / "results" / "compare_torch_optim.json"
MANUAL = FOLDER.parent / "MLP_Manual"
BY_HAND = MANUAL / "results" / "compare_optimizers.json"  # if you have no rows of your own
WEIGHT_DECAY = {"adamw": 0.05, "muon": 0.05}  # as by hand
DIVERGED = {"diverged": True, "accuracy": None}
POINTS = 10  # of the curve of training loss, in an epoch


def make_network(data: Split) -> MLP:
    """As by hand: from one seed, both draw the same initial weights."""
    sizes = (data.inputs.shape[1], (256, 256, 256), len(data.classes))
    model = MLP(*sizes, batch_norm=False, dropout=0.0, input_dropout=0.0)
    return model.to(data.inputs.device)


def fit(name: str, lr: float, seed: int, epochs: int, train: Split, held_out: Split) -> dict:
    """A training from `seed`, its rate going down to 0 in a cosine: what it reached, and the mean
    loss of every tenth of an epoch. As by hand, it ends where the loss is no number any more."""
    seed_everything(seed)
    model, criterion = make_network(train), nn.CrossEntropyLoss()
    optimizer = make_optimizer(name, model, lr, WEIGHT_DECAY.get(name, 0.0))
    per_epoch = train.num_batches(128)
    schedule = make_schedule("cosine", optimizer, lr, epochs * per_epoch)
    model.train()
    losses, started = [], time.monotonic()
    for epoch in range(epochs):
        for inputs, labels in train.batches(128, seed, epoch):
            loss = criterion(model(inputs), labels)
            losses.append(loss.item())
            if not losses[-1] < 1e4:  # NaN, too
                return {**DIVERGED, "seconds": round(time.monotonic() - started, 2)}
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    seconds, found = round(time.monotonic() - started, 2), evaluate(model, held_out)
    if not found["loss"] < 1e4:
        return {**DIVERGED, "seconds": seconds}
    edges = [round(k * per_epoch / POINTS) for k in range(epochs * POINTS + 1)]
    parts = [losses[a:b] for a, b in zip(edges, edges[1:], strict=False) if b > a]
    curve = [round(statistics.fmean(part), 6) for part in parts]
    return {"diverged": False, **found, "seconds": seconds, "curve": curve}


def time_steps(train: Split, steps: int) -> dict[str, dict]:
    """Of every optimiser, in turns: the median time of a whole step and of the optimiser's part,
    and how many bytes it keeps."""
    inputs, labels = train.inputs[:128], train.labels[:128]
    models = {name: make_network(train) for name in OPTIMIZERS}
    learners = {name: make_optimizer(name, model, 1e-4, 0.0) for name, model in models.items()}
    times = {name: ([], []) for name in learners}
    for _ in range(steps):
        for name, optimizer in learners.items():
            synchronize(inputs.device)
            begin = time.perf_counter()
            loss = nn.functional.cross_entropy(models[name](inputs), labels)
            optimizer.zero_grad()
            loss.backward()
            synchronize(inputs.device)
            middle = time.perf_counter()
            optimizer.step()
            synchronize(inputs.device)
            end = time.perf_counter()
            times[name][0].append(end - begin)
            times[name][1].append(end - middle)
    found = {}
    for name, optimizer in learners.items():
        states = [value for state in optimizer.state.values() for value in state.values()]
        kept = sum(t.numel() * t.element_size() for t in states if torch.is_tensor(t) and t.dim())
        whole, own = (round(1e3 * statistics.median(t), 3) for t in times[name])
        found[name] = {"step_milliseconds": whole, "own_milliseconds": own, "bytes": kept}
    return found


def largest_difference(row: dict, other: dict, points: int | None = None) -> float:
    """Of two curves, or of their first points, relative to the second."""
    pairs = zip(row["curve"][:points], other["curve"][:points], strict=True)
    return max(abs(a - b) / abs(b) for a, b in pairs)


def digits(difference: float) -> str:
    """To how many digits two numbers agree that differ by so much; six are kept."""
    return "6" if difference < 1e-6 else f"{-math.log10(difference):.1f}"


def beside(row: dict, twin: dict) -> dict:
    """What is compared of a training and its twin by hand; nothing where one of them diverged."""
    first = whole = None
    if not row["diverged"] and not twin["diverged"]:
        first, whole = (largest_difference(row, twin, points) for points in (1, None))
    return {"by_hand": twin.get("accuracy"), "first": first, "whole": whole}


def table(path: Path = RECORD) -> str:
    """The README's tables, by common.results.report: at the best rates, and over the whole grid."""
    if not path.is_file():
        return "Nothing recorded yet."
    study, lines = rows.read(path), []
    for dataset, best in study["best"].items():
        cells = [[dataset, "rate", "accuracy by hand, %", "torch.optim, %", "same digits, first "
                  "tenth of an epoch", "whole training", "step by hand, ms", "torch.optim, ms",
                  "both keep, kB"]]  # fmt: skip
        for name, lr in best.items():
            found = rows.matching(study, dataset=dataset, optimizer=name, lr=lr)
            if not found:
                continue
            accuracies = [mean_std([row[key] for row in found], 100, 2)
                          for key in ("by_hand", "accuracy")]  # fmt: skip
            same = [digits(max(row[key] for row in found)) for key in ("first", "whole")]
            steps = [study[key][name] for key in ("by_hand", "steps")]
            times = [f"{step['step_milliseconds']:.2f}" for step in steps]
            kept = dict.fromkeys(f"{step['bytes'] / 1000:,.0f}" for step in steps)  # once, if equal
            cells.append([name, f"{lr:.2g}", *accuracies, *same, *times, " / ".join(kept)])
        lines += [*tables.table(cells), ""]
    lines += [*tables.table(grid(study)), ""]
    seeds = len({row["seed"] for row in study["rows"]})
    note = f"{study['settings']['epochs']} epochs, {seeds} seeds; the validation split. Digits: of "
    note += "the mean losses of each tenth of an epoch, the least of all seeds; over the grid, of "
    note += "the first tenth, where neither diverged. Times: the medians "
    note += f"of steps ({machine(study['environment'])})."
    return "\n".join([*lines, note, "", f"`{study['command']}`"])


def grid(study: dict) -> list[list[str]]:
    """The cells of a table: of every optimiser, all its trainings at all rates."""
    cells = [["all rates", "trainings", "diverge by hand", "with torch.optim", "same digits",
              "least", "difference of accuracies, points, mean", "largest"]]  # fmt: skip
    for name in OPTIMIZERS:
        found = rows.matching(study, optimizer=name)
        if both := [row for row in found if row["first"] is not None]:
            ends = [sum(row[key] is None for row in found) for key in ("by_hand", "accuracy")]
            same = [row["first"] for row in both]
            apart = [100 * (row["accuracy"] - row["by_hand"]) for row in both]
            cells.append([name, *map(str, [len(found), *ends]), digits(statistics.median(same)),
                          digits(max(same)), f"{statistics.fmean(apart):+.2f}",
                          f"{max(map(abs, apart)):.1f}"])  # fmt: skip
    return cells


def key_of(row: dict) -> dict:
    return {name: row[name] for name in ("dataset", "optimizer", "lr", "seed")}


def check_same_twins(path: Path, source: Path, by_hand: dict) -> None:
    """Raises UserError where the rows in `path` were compared with other ones than `source` has."""
    for row in rows.read(path)["rows"] if path.is_file() else ():
        twins = rows.matching(by_hand, **key_of(row))
        if [twin.get("accuracy") for twin in twins] != [row["by_hand"]]:
            raise UserError(f"{path} has other rows by hand than {source}: name another --output")


def main(argv=None):
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--by-hand", metavar="FILE", help="rows of the twin (default: your own, else ours)")
    add("--data-dir", type=cli.place, help="where the data lies; before $PLAYGROUND_DATA")
    add("--device", default="auto", help="auto, cpu, cuda or mps")
    add("--quick", action="store_true", help="what MLP_Manual/optimizers.py --quick found")
    add("--output", metavar="FILE", help="the rows (default: runs/torch_optim.json)")
    args = parser.parse_args(argv)
    quick = "quick" * args.quick
    device, own = select_device(args.device), MANUAL / "runs" / quick / "optimizers.json"
    source = Path(args.by_hand or (own if args.quick or own.is_file() else BY_HAND))
    path = Path(args.output or FOLDER / "runs" / quick / "torch_optim.json")
    if not source.is_file():
        flag = " --quick" * args.quick
        raise UserError(f"{source} is not there: run `python MLP_Manual/optimizers.py{flag}`")
    by_hand = rows.read(source)
    shared = ("datasets", "rates", "epochs")
    if "steps" not in by_hand or not set(shared) <= by_hand["settings"].keys():
        raise UserError(f"{source} holds no rows of MLP_Manual/optimizers.py")
    if by_hand["environment"] != environment(device):
        other = f"{printable(source)} is of another machine"
        print(f"{other}: do not compare the times", file=sys.stderr)
    settings = {key: by_hand["settings"][key] for key in shared}
    check_same_twins(path, source, by_hand)
    splits = {name: [split.to(device) for split in load_training(name, args.data_dir)]
              for name in settings["datasets"]}  # fmt: skip

    def make(dataset: str, optimizer: str, lr: float, seed: int) -> dict:
        (twin,) = rows.matching(by_hand, dataset=dataset, optimizer=optimizer, lr=lr, seed=seed)
        torch.set_flush_denormal(True)  # as by hand: subnormal numbers are slow
        found = fit(optimizer, lr, seed, settings["epochs"], *splits[dataset])
        torch.set_flush_denormal(False)
        found |= beside(found, twin)
        ends = ["diverges" if found[who] is None else f"{found[who]:.2%}"
                for who in ("accuracy", "by_hand")]  # fmt: skip
        print(f"{dataset:>13} {optimizer:>8} {lr:<9.2g} seed {seed}  {ends[0]}, {ends[1]} by hand",
              flush=True)  # fmt: skip
        return found

    keys = [key_of(row) for row in by_hand["rows"]]
    command = "python MLP_Torch/torch_optim.py" + " --quick" * args.quick
    study = rows.collect(
        path, settings, command, device, keys, make,
        by_hand=lambda: by_hand["steps"],
        steps=lambda: time_steps(splits[settings["datasets"][0]][0], 20 if args.quick else 300),
    )  # fmt: skip
    study["best"] = {dataset: best_rates(by_hand, dataset) for dataset in settings["datasets"]}
    rows.write(path, study)  # the best of all rows that are there now
    draw(path.with_name("torch_optim.png"), study, by_hand, POINTS)
    print(f"\n{table(path)}\n\nrows in {printable(path)}, picture beside them")


if __name__ == "__main__":
    cli.entry(main)
