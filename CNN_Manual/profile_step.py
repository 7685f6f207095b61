"""Where the time of a training step goes: `python CNN_Manual/profile_step.py`, layer by layer.

The steps are like those of train.py, with AdamW. The images are random. The augmentation is that of
the recipe for mnist-sample. --record writes the medians to results/compare_profile.json, for the
README's table; nothing else should run then.
"""

import json
import statistics
import time
from argparse import Namespace
from collections import defaultdict
from pathlib import Path

if not __package__:  # started by its path
    import start  # noqa: F401

import torch

from CNN_Manual.model import CNN
from CNN_Manual.train import SAMPLE, augment
from CNN_Manual.utils.losses import CrossEntropy
from CNN_Manual.utils.optim import AdamW
from common import checkpoint, cli
from common.device import autocast, environment, git_commit, machine, seed_everything
from common.results import tables

FOLDER = Path(__file__).resolve().parent
RECORD = FOLDER / "results" / "compare_profile.json"
PRECISIONS = ("float32", "bfloat16")


def profile(precision: str, steps: int, warmup: int = 5) -> dict[str, float]:
    """Milliseconds of a step by part: the median over steps of what all its calls took."""
    model, criterion, device = CNN().train(), CrossEntropy(0.1), torch.device("cpu")
    optimizer, args = AdamW(model, lr=1e-3, weight_decay=0.05), Namespace(**SAMPLE)
    images, labels = torch.randn(128, 1, 28, 28), torch.randint(10, (128,))
    seconds: dict[str, float] = defaultdict(float)

    def timed(part: str, function):
        def call(*arguments):
            began = time.perf_counter()
            result = function(*arguments)
            seconds[part] += time.perf_counter() - began
            return result

        return call

    for _, layer in model.modules():
        if not layer.children():  # a layer of its own, not several
            for way in ("forward", "backward"):
                setattr(layer, way, timed(f"{type(layer).__name__}, {way}", getattr(layer, way)))
    change, loss = timed("augmentation", augment), timed("CrossEntropy, forward", criterion.forward)
    move = timed("AdamW", optimizer.step)
    found = defaultdict(list)
    for step in range(warmup + steps):
        seconds.clear()
        batch = change(images, args, 0.0)
        with autocast(device, precision):
            loss(model.forward(batch), labels)
            model.backward(criterion.backward())
            move()
        for part, value in seconds.items() if step >= warmup else ():
            found[part].append(1e3 * value)
    return {part: round(statistics.median(values), 2) for part, values in found.items()}


def table(path: Path = RECORD) -> str:
    """The README's table, by common.results.report."""
    if not path.is_file():
        return "Nothing recorded yet."
    result = json.loads(path.read_text(encoding="utf-8"))
    found = result["step_parts"]
    totals = {name: sum(parts.values()) for name, parts in found.items()}
    lines = [["part", *(f"{name}, {what}" for name in found for what in ("ms", "share"))]]
    for part in [*next(iter(found.values())), "all"]:
        cells = []
        for name, parts in found.items():
            milliseconds = parts.get(part, totals[name])
            cells += [f"{milliseconds:.1f}", f"{milliseconds / totals[name]:.0%}"]
        lines.append([part, *cells])
    note = f"Batches of {result['batch_size']}, {result['steps']} steps"
    note += f" ({machine(result['environment'])})."
    return "\n".join([*tables.table(lines), "", note, "", f"`{result['command']}`"])


def main(argv=None):
    parser = cli.Parser(__doc__.splitlines()[0])
    parser.add_argument("--steps", type=cli.positive_int, default=50, help="steps to time")
    parser.add_argument("--record", action="store_true", help="write results/compare_profile.json")
    args = parser.parse_args(argv)
    seed_everything(0)
    found = {precision: profile(precision, args.steps) for precision in PRECISIONS}
    for part in found["float32"]:
        print(f"{part:24}", *(f"{found[name][part]:8.2f} ms {name}" for name in PRECISIONS))
    if args.record:
        facts = {"command": "python CNN_Manual/profile_step.py", "commit": git_commit()}
        facts |= {"batch_size": 128, "steps": args.steps, "step_parts": found}
        checkpoint.write_json(RECORD, {**facts, "environment": environment(torch.device("cpu"))})
        print("recorded in CNN_Manual/results/compare_profile.json")


if __name__ == "__main__":
    cli.entry(main)
