"""What does PyTorch give, and what does it cost? `python studies/twins.py` (an hour).

Every network by hand and its twin in PyTorch, side by side: the time of a training step and of its
parts, its memory, where in the network the time goes (layer_times.py, step_memory.py), and how far
both get in the same seconds. What the folders have recorded and their lines of code come from
verdict.py. Rows are kept as they are found, so a study that was stopped goes on where it was.
"""

import json
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import mean, median, quantiles

if not __package__:  # started by its path
    import start  # noqa: F401

import torch

from common import cli
from common.data import ROOT
from common.device import seed_everything, select_device
from common.errors import UserError
from common.history import METRICS
from common.plots import new_figure, save
from common.results import rows
from common.results.compare_steps import LAYERS, PAIRS, WINDOW, make_pair
from studies import protocol, twins_tables
from studies.layer_times import TWINS, profile, turns
from studies.short_trainings import METRIC, datasets, train_both

RECORD = protocol.record("twins")
LAYER = {"input_size": 64, "hidden_size": 256}
QUICK_PAIRS = ["MLP", "LSTM"]
QUICK = {  # small networks
    "MLP": {"hidden_sizes": (16,)}, "CNN": {"channels": (4, 4)},
    **dict.fromkeys(LAYERS, {"input_size": 8, "hidden_size": 8}),
    **dict.fromkeys(("Transformer", "LanguageModel"), {
        "vocab_size": 20, "embed_dim": 8, "num_heads": 2, "num_layers": 1, "feedforward_dim": 8,
    }),
}  # fmt: skip


# ---- a step ----


def sizes_of(name: str, quick: bool) -> tuple:
    """The size of a pair's batch, and the arguments of its networks."""
    batch = 4 if quick else PAIRS[name].batch_size
    size = (8 if quick else WINDOW, batch) if name in LAYERS else batch
    return size, QUICK[name] if quick else LAYER if name in LAYERS else {}


def made(name: str, args: Namespace) -> tuple:
    """The pair, from the same weights, and a batch."""
    size, sizes = sizes_of(name, args.quick)
    seed_everything(0)
    pair = make_pair(name, torch.float32, args.device, **sizes)
    return pair, PAIRS[name].make_batch(size, pair[1].model, torch.float32, args.device)


def quartiles(values: list[float]) -> list[float]:
    return [round(value, 4) for value in quantiles(values, n=4, method="inclusive")]


def time_step(name: str, args: Namespace) -> dict:
    """Quartiles of a step's milliseconds, medians of its parts, and quartiles of the ratio of each
    step by hand over PyTorch's right after it."""
    found = turns(*made(name, args), args.device, args.steps)
    whole = {twin: [1000 * sum(step.values()) for step in steps] for twin, steps in found.items()}
    parts = {twin: {part: round(1000 * median(step[part] for step in steps), 4)
                    for part in steps[0]} for twin, steps in found.items()}  # fmt: skip
    ratio = quartiles([a / b for a, b in zip(*whole.values(), strict=True)])
    milliseconds = {twin: quartiles(values) for twin, values in whole.items()}
    return {"milliseconds": milliseconds, "parts": parts, "ratio": ratio}


def memory_of_step(name: str, twin: str, args: Namespace) -> dict:
    """Its megabytes, found by step_memory.py in a process of its own."""
    sizes = [json.dumps(sizes_of(name, quick)) for quick in (args.quick, True)]
    module = [sys.executable, "-m", "studies.step_memory"]
    command = [*module, name, twin, str(args.device), *sizes]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if result.returncode:
        reason = (result.stderr.strip() or f"exit code {result.returncode}").splitlines()[-1]
        raise UserError(f"{' '.join(command)} failed: {reason}")
    return {"megabytes": json.loads(result.stdout)}


# ---- rows, table, picture ----


def keys_of(args: Namespace) -> Iterator[dict]:
    for name in args.pairs:
        yield {"what": "step", "pair": name}
        yield from ({"what": "memory", "pair": name, "twin": twin} for twin in TWINS)
        yield {"what": "profile", "pair": name}
    for seed in range(args.seeds):
        for name in args.pairs:
            for twin in TWINS:
                yield {"what": "training", "pair": name, "twin": twin, "seed": seed}


def make(args: Namespace, what: str, pair: str, **key) -> dict:
    print(what, pair, *key.values(), flush=True)
    if what == "profile":
        return {"layers": profile(pair, *made(pair, args), args.device, args.steps)}
    measure: Callable = {"step": time_step, "memory": memory_of_step, "training": train_both}[what]
    return measure(pair, **key, args=args)


def draw(path: Path, study: dict) -> None:
    """What both twins of each pair reach, over the seconds of training."""
    trained = rows.matching(study, what="training")
    pairs = [name for name in PAIRS if any(row["pair"] == name for row in trained)]
    columns = min(4, len(pairs))
    figure, axes = new_figure(-(-len(pairs) // columns), columns, (3.2 * columns, 6))
    for axis in axes.flat[len(pairs) :]:
        axis.remove()
    for axis, name in zip(axes.flat, pairs, strict=False):
        heading, factor, _ = METRICS[METRIC[name]]
        for twin, label, style in zip(TWINS, ("by hand", "PyTorch"), ("o-", "s--"), strict=True):
            found = rows.matching(study, what="training", pair=name, twin=twin)
            points = [
                [(s, factor * v) for s, v in zip(row["seconds"], *row["validation"].values(),
                                                 strict=True)] for row in found
            ]  # fmt: skip
            means = [
                tuple(map(mean, zip(*mark, strict=True))) for mark in zip(*points, strict=True)
            ]
            axis.plot(*zip(*means, strict=True), style, ms=4, alpha=0.8, label=label)
        axis.set(title=name, xlabel="seconds of training", ylabel=f"validation {heading}")
        axis.grid(alpha=0.3)
    axes[0, 0].legend()
    save(figure, path)


def table(path: Path = RECORD) -> str:
    """The README's tables, by common.results.report."""
    return twins_tables.of_study(rows.read(path)) if path.is_file() else "Nothing recorded yet."


def verdict(folder: Path) -> str:
    """The short table of the root README, or of a twin's."""
    if not RECORD.is_file():
        return "Nothing recorded yet."
    return twins_tables.of_pairs(rows.read(RECORD), None if folder == ROOT else folder.name)


def parse(argv) -> Namespace:
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--pairs", nargs="+", choices=PAIRS, help="some of the twins; the others may come later")
    add("--steps", type=cli.positive_int, help="steps of each twin that are timed (default: 50)")
    add("--seconds", type=cli.positive, help="of each short training (default: 60)")
    add("--seeds", type=cli.positive_int, help="short trainings of each network (default: 3)")
    add("--data-dir", type=cli.place, help="where the data lies; before $PLAYGROUND_DATA")
    add("--device", default="auto", help="auto, cpu, cuda or mps")
    add("--quick", action="store_true", help="small networks on stand-ins, to see that it works")
    add("--output", metavar="FILE", help="the rows (default: studies/runs/twins.json)")
    args = parser.parse_args(argv)
    args.pairs = args.pairs or (QUICK_PAIRS if args.quick else list(PAIRS))
    args.steps = args.steps or (3 if args.quick else 50)
    args.seconds = args.seconds or (0.2 if args.quick else 60.0)
    args.seeds = args.seeds or (1 if args.quick else 3)
    if args.steps < 2:
        raise UserError("--steps: a spread needs at least 2")
    args.device = select_device(args.device)
    args.datasets = datasets(args)
    return args


def main(argv=None):
    args = parse(argv)
    settings = {name: getattr(args, name) for name in ("steps", "seconds", "datasets", "quick")}
    usual = protocol.FOLDER / "runs" / ("quick" * args.quick) / "twins.json"
    path = Path(args.output or usual)
    words = ["python studies/twins.py", *["--quick"] * args.quick]
    command = " ".join([*words, f"--steps {args.steps} --seconds {args.seconds:g}"])
    keys = list(keys_of(args))
    study = rows.collect(path, settings, command, args.device, keys, partial(make, args))
    draw(path.with_name("twins.png"), study)
    protocol.finish(path, table(path))


if __name__ == "__main__":
    cli.entry(main)
