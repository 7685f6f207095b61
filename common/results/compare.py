"""Twins side by side: `python -m common.results.compare MLP`; layers: `... compare RNN GRU LSTM`.

Both get the same weights and the same batches, in one process. Printed are the largest differences
in loss (of a layer: in outputs) and gradients, the time per training step (of a layer: of forward
and backward), and the lines of code. --record writes the figures to results/compare.json of the
hand-written folder, for the README: of a second network with its name, of layers together.
"""

import ast
import statistics
import time

import numpy as np
import torch
from torch import Tensor

from common import checkpoint, cli
from common.data import ROOT
from common.device import seed_everything, select_device, synchronize
from common.folders import environment, git_commit
from common.results.compare_steps import LAYERS, PAIRS, TRANSFORMERS, TWINS, WINDOW, make_pair


def relative(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, relative to the largest value. 0 where there is nothing but rounding,
    as in the gradient of a bias before batch normalisation."""
    scale = theirs.abs().max()
    if scale + ours.abs().max() <= 1e-10:
        return 0.0
    return ((ours - theirs).abs().max() / scale.clamp(min=1e-12)).item()


def differences(name: str, device: torch.device, batch_size, steps: int = 10, **kwargs) -> dict:
    """The largest differences over `steps` steps in float64 (float32 on MPS).

    `loss` is absolute, in nats; `gradient` is relative to the largest gradient of its tensor. Of a
    layer, `loss` is that of the outputs, relative to the largest. `kwargs` go to the constructors.
    Both networks drop the same values, because both draw from the same seed; but PyTorch's
    attention, from 2.5 on, draws in another way, so there nothing is dropped.
    """
    dtype = torch.float32 if device.type == "mps" else torch.float64
    newer = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 5)
    without = {"dropout": 0.0} if newer and PAIRS[name].manual in TRANSFORMERS else {}
    manual, native = make_pair(name, dtype, device, **without, **kwargs)
    found = {"loss": [], "gradient": []}
    for step in range(steps):
        batch = PAIRS[name].make_batch(batch_size, native.model, dtype, device)
        torch.manual_seed(step)
        ours = manual(*batch)
        torch.manual_seed(step)
        theirs = native(*batch)
        difference = relative(ours, theirs) if name in LAYERS else (ours - theirs).abs().item()
        found["loss"].append(difference)
        expected = native.gradients()
        found["gradient"] += [relative(g, expected[key]) for key, g in manual.gradients().items()]
    return {name: float(np.max(values)) for name, values in found.items()}  # NaN where one is


def timings(name: str, device: torch.device, batch_size, steps: int, warmup=5, **kwargs) -> dict:
    """Seconds of each training step in float32, the twins taking turns."""
    pair = make_pair(name, torch.float32, device, **kwargs)
    batch = PAIRS[name].make_batch(batch_size, pair[1].model, torch.float32, device)
    seconds = {"manual": [], "torch": []}
    for step in range(warmup + steps):
        for train_step, taken in zip(pair, seconds.values(), strict=True):
            synchronize(device)
            start = time.perf_counter()
            train_step(*batch)
            synchronize(device)
            if step >= warmup:
                taken.append(time.perf_counter() - start)
    return seconds


def lines_of_code(folder: str) -> int:
    """Lines of a folder's modules that hold code: no blank lines, comments or docstrings."""
    total = 0
    for path in (ROOT / folder).rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        lines = {n.lineno for n in ast.walk(tree) if isinstance(n, (ast.stmt, ast.expr))}
        for node in ast.walk(tree):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                lines -= set(range(node.lineno, node.end_lineno + 1))
        total += len(lines)
    return total


def measure(name: str, device: torch.device, batch_size, steps: int, **kwargs) -> dict:
    """The figures of a pair, which are printed as well. A layer's differences are of one step."""
    result = "output" if name in LAYERS else "loss"
    difference = differences(name, device, batch_size, 1 if name in LAYERS else 10, **kwargs)
    seconds = timings(name, device, batch_size, steps, **kwargs)
    medians = {twin: statistics.median(values) for twin, values in seconds.items()}
    milliseconds = {twin: round(1e3 * value, 2) for twin, value in medians.items()}
    ratio = medians["manual"] / medians["torch"]
    figures = {"step_milliseconds": milliseconds, "step_ratio": round(ratio, 3)}
    for folder, twin in zip(PAIRS[name][:2], medians, strict=True):
        what = f"{lines_of_code(folder):5d} lines" if name in TWINS else f"{name} by itself"
        print(f"{folder:12}  {milliseconds[twin]:8.2f} ms per step  {what}")
    print(f"time ratio {ratio:.2f} (medians of {steps} steps)")
    print(f"largest difference in {result} {difference['loss']:.1e}, in gradients "
          f"{difference['gradient']:.1e} (relative)", flush=True)  # fmt: skip
    return figures | {"largest_difference": difference}


def record(name: str, pairs: list[str], device: torch.device, **facts) -> None:
    """Write results/`name`.json of the hand-written folder of the pairs."""
    command = f"python -m common.results.compare {' '.join(pairs)}"
    result = {"command": command, "commit": git_commit(), **facts}
    path = ROOT / PAIRS[pairs[0]].manual / "results" / f"{name}.json"
    checkpoint.write_json(path, result | {"environment": environment(device)})
    print(f"recorded in {path.relative_to(ROOT)}")


def main(argv=None):
    parser = cli.Parser(__doc__.splitlines()[0])
    add = parser.add_argument
    add("pairs", nargs="+", choices=PAIRS, help="which networks or layers")
    add("--batch-size", type=cli.positive_int, help="examples per step")
    add("--steps", type=cli.positive_int, default=20, help="steps to time")
    add("--device", default="auto", help="auto, cpu, cuda or mps")
    add("--record", action="store_true", help="write results/compare.json")
    add("--window", type=cli.positive_int, default=WINDOW, help="a layer's time steps")
    add("--input-size", type=cli.positive_int, default=64, help="features that go into a layer")
    add("--hidden-size", type=cli.positive_int, default=256, help="a layer's units")
    args = parser.parse_args(argv)
    device = select_device(args.device)
    seed_everything(0)

    sizes = {"input_size": args.input_size, "hidden_size": args.hidden_size}
    layers = {}
    for name in args.pairs:
        manual_folder, torch_folder, network, _, usual_size, examples = PAIRS[name]
        facts = {"batch_size": args.batch_size or usual_size, "steps": args.steps}
        if name in LAYERS:
            facts |= {"window": args.window, **sizes}
            size = (args.window, facts["batch_size"])
            figures = measure(name, device, size, args.steps, **sizes)
            difference = max(figures["largest_difference"].values())
            layers[name] = figures | {"largest_difference": difference}
            continue
        figures = measure(name, device, facts["batch_size"], args.steps)
        folders = {"manual": manual_folder, "torch": torch_folder}
        lines = {twin: lines_of_code(folder) for twin, folder in folders.items()}
        of = {"network": network, "examples": examples} if examples else {}
        is_first = name == manual_folder.split("_")[0]
        if args.record:
            path = "compare" if is_first else f"compare_{network}"
            record(path, [name], device, twins=folders, **of, **facts, **figures, lines=lines)
    if args.record and layers:
        facts = {"window": args.window, **sizes, **facts}
        record("compare_layers", list(layers), device, **facts, layers=layers)


if __name__ == "__main__":
    cli.entry(main)
