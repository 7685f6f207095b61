"""What all studies of this folder have in common: the same minutes of training for every network.

One training of a network is measured several times, after so many minutes each. So its learning
rate may not know when it ends: it rises in the first fifth of an epoch and then stays, at half of
the peak in the folder's own recipe (which is a cosine's mean). And what is measured is an average
of the weights, which does what a falling rate does at the end: it takes the noise out. The rest is
the recipe's. Time in which a network is measured is no training time.
"""

import copy
import math
import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from common import cli
from common.device import machine, select_device
from common.errors import UserError, printable
from common.history import METRICS
from common.metrics import parameter_count
from common.plots import new_figure, save
from common.results import rows, tables
from common.results.report import mean_std
from studies import shares
from studies.memory import peak_megabytes

FOLDER = Path(__file__).resolve().parent
RATE, WARMUP, GAMMA = 0.5, 0.2, 8  # share of the recipe's peak; epochs; of the average


class Learner(NamedTuple):
    """A network in training."""

    model: object
    steps: Iterator[Tensor]  # without an end: each is a training step, and gives its loss
    evaluate: Callable[[object], float]  # what a network reaches on the validation split
    epoch: int  # how many steps are one pass over the training split


class Average:
    """A copy of the network with a mean of its weights, in which late steps count most:

        a ← a + (γ + 1) / (t + γ) · (θ − a)    after step t = 1, 2, …

    (Shamir & Zhang, 2013, arXiv:1212.1824: polynomial decay.) Step s has a share of about
    (γ + 1)/t · (s/t)^γ. So their mean age is about a tenth of all steps, whenever one looks.
    """

    def __init__(self, model):
        self.model, self.t = copy.deepcopy(model), 0
        states = (self.model.state_dict().values(), model.state_dict().values())
        self.pairs = list(zip(*states, strict=True))

    def update(self) -> None:
        self.t += 1
        for average, value in self.pairs:
            if average.is_floating_point():
                average.lerp_(value, (GAMMA + 1) / (self.t + GAMMA))
            else:  # a count
                average.copy_(value)


def rate(peak: float, epoch: int) -> Callable[[int], float]:
    """The learning rate of step 0, 1, …; `epoch` is the number of steps in one."""
    warmup = max(1, round(WARMUP * epoch))
    return lambda step: RATE * peak * min(1.0, (step + 1) / warmup)


def fit(
    model: nn.Module, criterion: Callable, optimizer: torch.optim.Optimizer,
    batches: Iterable, rate: Callable[[int], float], clip: float = 0.0,
) -> Iterator[Tensor]:  # fmt: skip
    """The loop of every train.py in PyTorch; yields the loss of each step."""
    model.train()
    for step, (inputs, labels) in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        loss = criterion(model(*inputs), labels)
        optimizer.zero_grad()
        loss.backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        yield loss.detach()


def learn(learner: Learner, minutes: list[float], metric: str) -> dict:
    """Train for the longest of these times, and measure after each: a row of the study."""
    average, seconds = Average(learner.model), 0.0
    found = {"steps": [], "epochs": [], "seconds": [], "validation": {metric: []}}
    for mark in minutes:
        while seconds < 60 * mark:
            begun = time.perf_counter()
            loss = next(learner.steps)
            average.update()
            finite = loss.isfinite().item()  # also waits for a GPU, so that times are true
            seconds += time.perf_counter() - begun
            if not finite:
                raise UserError(f"the loss is not finite after step {average.t}")
        found["steps"].append(average.t)
        found["epochs"].append(round(average.t / learner.epoch, 3))
        found["seconds"].append(round(seconds, 2))
        found["validation"][metric].append(learner.evaluate(average.model))
    return {**found, "parameters": parameter_count(learner.model)}


def make_row(build: Callable[[], Learner], minutes: list[float], metric: str) -> dict:
    """The row of a network that `build` makes. Its memory is that of another one, made alike."""
    megabytes = peak_megabytes(build)
    return {**learn(build(), minutes, metric), "megabytes": round(megabytes, 1)}


# ---- flags and rows ----


def parse(description: str, argv, minutes: list[float], quick: list[float]) -> Namespace:
    """The flags of every study, with its default marks and those of --quick."""
    parser = cli.Parser(description)
    add = parser.add_argument
    shown = " ".join(map(str, minutes))
    add("--minutes", type=cli.positive, nargs="+", metavar="M",
        help=f"of training, after which a network is measured (default: {shown})")  # fmt: skip
    add("--seeds", type=cli.positive_int, help="trainings of each network (default: 3)")
    add("--data-dir", type=cli.place, help="where the data lies; before $PLAYGROUND_DATA")
    add("--device", default="auto", help="auto, cpu, cuda or mps")
    add("--quick", action="store_true", help="a second each on a stand-in, to see that it works")
    add("--output", metavar="FILE", help="the rows (default: NAME.json in studies/runs)")
    add("--part", type=shares.part, metavar="1/2", help="train this share alone: studies/shares.py")
    args = parser.parse_args(argv)
    args.minutes = args.minutes or (quick if args.quick else minutes)
    if args.minutes != sorted(set(args.minutes)):
        raise UserError("--minutes: each has to be longer than the one before it")
    args.seeds = args.seeds or (2 if args.quick else 3)
    args.device = select_device(args.device)
    return args


def record(name: str) -> Path:
    return FOLDER / "results" / f"compare_{name}.json"


def collect(name: str, args: Namespace, keys: Iterable[dict], make: Callable[..., dict]) -> tuple:
    """The file of the study `name`, and the study, with a row for each of `keys`."""
    usual = FOLDER / "runs" / ("quick" * args.quick)
    path = Path(args.output or usual / f"{name}.json")
    runs = usual if path.resolve() == record(name) else path.parent  # where the parts lie
    settings = {"dataset": args.dataset, "minutes": args.minutes, "quick": args.quick}
    words = ["--quick"] * args.quick + ["--minutes", *(f"{mark:g}" for mark in args.minutes)]
    command = " ".join([f"python studies/{name}.py", *words])
    if args.part:
        path, keys = shares.place(runs, name, args.part), [*keys][args.part[0] - 1 :: args.part[1]]
    ready = [] if args.part else shares.found(runs, name, settings, args.device)

    def said(**key) -> dict:
        row = next((row for row in ready if key.items() <= row.items()), {}) or make(**key)
        print(*(f"{k} {v}" for k, v in key.items()), describe(row), sep="  ", flush=True)
        return row

    return path, rows.collect(path, settings, command, args.device, keys, said)


def describe(row: dict) -> str:
    """What was found, for whoever watches."""
    if "ratio" in row:
        return f"time of a step by hand over PyTorch's: {row['ratio']:.2f}"
    ((metric, values),) = row["validation"].items()
    return f"{metric} " + " → ".join("–" if v is None else shown(metric, [v]) for v in values)


def shown(metric: str, values: list[float]) -> str:
    return mean_std(values, *METRICS[metric][1:])


# ---- table and picture ----


def at(found: list[dict], metric: str, place: int) -> list[float]:
    """The values of some rows after the training time number `place`, where there is one."""
    return [v for row in found if (v := row["validation"][metric][place]) is not None]


def table(study: dict, networks: dict[str, str], metric: str) -> list[str]:
    """A line for each network that has rows: what it reached, and what it took."""
    minutes = study["settings"]["minutes"]
    marks = [f"{mark:g} min" for mark in minutes]
    lines = [["network", f"validation {METRICS[metric][0]}, after {marks[0]}", *marks[1:], "epochs",
              "ms per step", "parameters", "memory, MB", "seeds"]]  # fmt: skip
    for network, name in networks.items():
        found = rows.matching(study, network=network)
        if found:
            values = [at(found, metric, place) for place in range(len(minutes))]
            cells = [shown(metric, some) if some else "" for some in values]
            lines.append([name, *cells, *effort(found), f"{len(found)}"])
    return tables.table(lines)


def effort(found: list[dict]) -> list[str]:
    """Epochs, time of a step, parameters and memory, of networks that are trained in steps."""
    parameters = f"{found[0]['parameters']:,}"
    if "steps" not in found[0]:
        return ["", "", parameters, ""]
    epochs, steps, seconds = (
        sum(row[name][-1] for row in found) for name in ("epochs", "steps", "seconds")
    )
    return [f"{epochs / len(found):.1f}", f"{1000 * seconds / steps:.1f}", parameters,
            f"{found[0]['megabytes']:.0f}"]  # fmt: skip


def note(study: dict, name: str, words: str) -> list[str]:
    """What stands below a table: the data and the machine, the command, the picture."""
    where = f"{study['settings']['dataset']}. {words} Mean ± standard deviation "
    where += f"({machine(study['environment'])})."
    return ["", where, "", f"`{study['command']}`", "", f"![{name}](results/{name}.png)"]


def draw(path: Path, study: dict, networks: dict[str, str], metric: str) -> None:
    """What every network reaches, over the time of training and over the passes it has made."""
    figure, axes = new_figure(1, 2, (12, 4.2), sharey=True)
    factor, minutes = METRICS[metric][1], study["settings"]["minutes"]
    for number, (network, name) in enumerate(networks.items()):
        found = rows.matching(study, network=network)
        if not found:
            continue
        values = torch.tensor([[factor * (math.nan if v is None else v) for v in
                                row["validation"][metric]] for row in found])  # fmt: skip
        times = [("minutes", torch.tensor([minutes] * len(found)).float())]
        if "epochs" in found[0]:
            times.append(("epochs", torch.tensor([row["epochs"] for row in found]).float()))
        for axis, (_, x) in zip(axes[0], times, strict=False):
            axis.plot(x.mean(0).tolist(), values.mean(0).tolist(), color=f"C{number}", label=name)
            axis.plot(x.flatten().tolist(), values.flatten().tolist(), "o", color=f"C{number}",
                      alpha=0.5, ms=4)  # fmt: skip
    axes[0, 0].set(xlabel="minutes of training", ylabel=f"validation {METRICS[metric][0]}")
    axes[0, 1].set(xlabel="passes over the training data", xscale="log")
    axes[0, 1].xaxis.get_major_locator().set_params(subs=[1, 2, 5])
    axes[0, 1].xaxis.set_major_formatter("{x:g}")
    axes[0, 1].xaxis.set_minor_formatter("")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    for axis in axes.flat:
        axis.grid(alpha=0.3)
    save(figure, path)


def finish(path: Path, text: str) -> None:
    print(f"\n{text}\n\nrows in {printable(path)}, picture beside them")
