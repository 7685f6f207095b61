"""Where the time of a training step goes: `python ResNet/profile_step.py`, by PyTorch's profiler.

The steps are those of the network `--model` on random images of 32 x 32 pixels. --record writes
the figures to results/compare_profile.json, for the README's table; nothing else should run then.
"""

import json
from collections import defaultdict
from pathlib import Path

if not __package__:  # started by its path
    import start  # noqa: F401

import torch
from torch.nn import functional as F

from common import checkpoint, cli
from common.device import autocast, environment, git_commit, machine, seed_everything
from common.results import tables
from ResNet.model import PRESETS
from ResNet.utils.optim import make_optimizer

FOLDER = Path(__file__).resolve().parent
RECORD = FOLDER / "results" / "compare_profile.json"
PRECISIONS = ("float32", "bfloat16")
PARTS = {  # part -> what the names of its kernels contain; the first that fits
    "convolutions, backward": ("convolution_backward",),
    "convolutions, forward": ("convolution",),
    "products of small images": ("::mm", "addmm", "matmul", "::linear"),
    "BatchNorm": ("batch_norm",),
    "GELU and ReLU": ("gelu", "relu", "threshold", "clamp"),
    "pooling": ("pool", "amax", "mean"),
    "copies, casts and fills": ("copy", "fill", "zero", "cat", "pad", "empty", "resize", "clone"),
}
REST = "optimiser, sums and all else"


def profile(name: str, precision: str, batch_size: int, steps: int) -> dict[str, float]:
    """Milliseconds of a step by part: means, as the profiler adds up."""
    device = torch.device("cpu")
    model = PRESETS[name]().to(memory_format=torch.channels_last).train()
    optimizer = make_optimizer("nesterov", model, 0.1, 5e-4)
    images, labels = torch.randn(batch_size, 3, 32, 32), torch.randint(10, (batch_size,))

    def step():
        with autocast(device, precision):
            loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    step()  # the first sets things up
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        for _ in range(steps):
            step()
    found = defaultdict(float)
    for event in profiler.key_averages():
        fits = (part for part, words in PARTS.items() if any(word in event.key for word in words))
        found[next(fits, REST)] += event.self_cpu_time_total / 1e3 / steps
    return {part: round(found[part], 1) for part in [*PARTS, REST]}


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
    add = parser.add_argument
    add("--model", choices=PRESETS, default="resnet9-wide", metavar="NAME", help="the network")
    add("--batch-size", type=cli.number(int, 2), default=128, help="images per step")
    add("--steps", type=cli.positive_int, default=10, help="steps to time")
    add("--record", action="store_true", help="write results/compare_profile.json")
    args = parser.parse_args(argv)
    seed_everything(0)
    found = {p: profile(args.model, p, args.batch_size, args.steps) for p in PRECISIONS}
    for part in found["float32"]:
        print(f"{part:32}", *(f"{found[name][part]:8.1f} ms {name}" for name in PRECISIONS))
    if args.record:
        command = f"python ResNet/profile_step.py --model {args.model}"
        facts = {"command": f"{command} --batch-size {args.batch_size}", "commit": git_commit()}
        facts |= {"batch_size": args.batch_size, "steps": args.steps, "step_parts": found}
        checkpoint.write_json(RECORD, {**facts, "environment": environment(torch.device("cpu"))})
        print("recorded in ResNet/results/compare_profile.json")


if __name__ == "__main__":
    cli.entry(main)
