"""Twins side by side: `python -m common.results.compare MLP`; layers: `... compare RNN GRU LSTM`.

Both get the same weights and batches, in one process. Printed are the largest differences in loss
(of a layer: outputs) and gradients, the time per training step (of a layer: forward and backward),
and the lines of code. --record writes the figures to results/compare.json of the hand-written
folder (compare_NAME.json of a second network, compare_layers.json of layers), for the README.
"""

import importlib
import inspect
import statistics
import time

import numpy as np
import torch
from torch import Tensor

from common import checkpoint, cli
from common import device as devices
from common.data import ROOT
from common.results.compare_steps import LAYERS, PAIRS, TRANSFORMERS, TWINS, WINDOW, make_pair
from common.results.tables import lines_of_code


def relative(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, relative to the largest value. 0 where there is nothing but rounding,
    as in the gradient of a bias before batch normalisation."""
    scale = theirs.abs().max()
    if scale + ours.abs().max() <= 1e-10:
        return 0.0
    return ((ours - theirs).abs().max() / scale.clamp(min=1e-12)).item()


def no_dropout(name: str) -> dict[str, float]:
    """The arguments with which a network drops nothing."""
    network = getattr(importlib.import_module(f"{PAIRS[name].native}.model"), PAIRS[name].network)
    return {key: 0.0 for key in inspect.signature(network).parameters if key.endswith("dropout")}


def differences(name: str, device: torch.device, batch_size, steps: int = 10, **kwargs) -> dict:
    """The largest differences over `steps` steps in float64 (float32 on MPS).

    `loss` is absolute, in nats; `gradient` is relative to the largest gradient of its tensor. Of a
    layer, `loss` is that of the outputs, relative to the largest. `kwargs` go to the constructors.
    Both networks drop the same values, because both draw from the same seed; but a GPU's kernels
    and PyTorch's attention, from 2.5 on, draw in another way: there nothing is dropped.
    """
    dtype = torch.float32 if device.type == "mps" else torch.float64
    newer = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 5)
    otherwise = device.type != "cpu" or (newer and PAIRS[name].manual in TRANSFORMERS)
    without = no_dropout(name) if otherwise and name in TWINS else {}
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


def timings(pair, batch, device: torch.device, steps: int, warmup: int = 5) -> dict:
    """Seconds of each training step on the batch, the twins taking turns."""
    seconds = {"manual": [], "torch": []}
    for _ in range(warmup + steps):
        for train_step, taken in zip(pair, seconds.values(), strict=True):
            devices.synchronize(device)
            start = time.perf_counter()
            train_step(*batch)
            devices.synchronize(device)
            taken.append(time.perf_counter() - start)
    return {twin: taken[warmup:] for twin, taken in seconds.items()}


def measure(name: str, device: torch.device, batch_size, steps: int, **kwargs) -> dict:
    """The figures of a pair, which are printed as well. A layer's differences are of one step."""
    found = differences(name, device, batch_size, 1 if name in LAYERS else 10, **kwargs)
    pair = make_pair(name, torch.float32, device, **kwargs)
    batch = PAIRS[name].make_batch(batch_size, pair[1].model, torch.float32, device)
    seconds = timings(pair, batch, device, steps)
    medians = {twin: statistics.median(values) for twin, values in seconds.items()}
    milliseconds = {twin: round(1e3 * value, 2) for twin, value in medians.items()}
    ratio = medians["manual"] / medians["torch"]
    for folder, value in zip(PAIRS[name][:2], milliseconds.values(), strict=True):
        what = f"{lines_of_code(ROOT / folder):5d} lines" if name in TWINS else name
        print(f"{folder:12}  {value:8.2f} ms per step  {what}")
    print(f"time ratio {ratio:.2f} (medians of {steps} steps)")
    print(f"largest difference in {'output' if name in LAYERS else 'loss'} {found['loss']:.1e}, "
          f"in gradients {found['gradient']:.1e} (relative)", flush=True)  # fmt: skip
    figures = {"step_milliseconds": milliseconds, "step_ratio": round(ratio, 3)}
    return figures | {"largest_difference": max(found.values()) if name in LAYERS else found}


def record(names: list[str], file: str, device: torch.device, facts: dict) -> None:
    """Write what was found of these pairs to a file in results/ of the hand-written folder."""
    commit, where = devices.git_commit(), devices.environment(device)
    sizes = [f"--{k.replace('_', '-')} {v}" for k, v in facts.items() if isinstance(v, int)]
    command = " ".join(["python -m common.results.compare", *names, *sizes])
    path = ROOT / PAIRS[names[0]].manual / "results" / file
    checkpoint.write_json(path, dict(command=command, commit=commit, **facts, environment=where))
    print(f"recorded in {path.relative_to(ROOT)}")


def main(argv=None):
    parser = cli.Parser(__doc__.splitlines()[0])
    add = parser.add_argument
    add("pairs", nargs="*", default="all", choices=[*PAIRS, "all"], help="which networks, layers")
    add("--batch-size", type=cli.positive_int, help="examples per step")
    add("--steps", type=cli.positive_int, default=20, help="steps to time")
    add("--device", default="auto", help="auto, cpu, cuda or mps")
    add("--record", action="store_true", help="write results/compare.json")
    add("--window", type=cli.positive_int, default=WINDOW, help="a layer's time steps")
    add("--input-size", type=cli.positive_int, default=64, help="features that go into a layer")
    add("--hidden-size", type=cli.positive_int, default=256, help="a layer's units")
    args = parser.parse_args(argv)
    device = devices.select_device(args.device)
    devices.seed_everything(0)
    sizes, layers = {"input_size": args.input_size, "hidden_size": args.hidden_size}, {}
    for name, pair in ((n, PAIRS[n]) for n in (PAIRS if "all" in args.pairs else args.pairs)):
        facts = {"batch_size": args.batch_size or pair.batch_size, "steps": args.steps}
        if name in LAYERS:
            shape = (args.window, facts["batch_size"])
            layers[name] = measure(name, device, shape, args.steps, **sizes)
            of_layers = {**facts, "window": args.window, **sizes, "layers": layers}
            continue
        twins = {"manual": pair.manual, "torch": pair.native}
        of = {"network": name, "examples": pair.examples} if pair.examples else {}
        facts |= {"twins": twins, **of, **measure(name, device, facts["batch_size"], args.steps)}
        if args.record:
            suffix = "" if pair.manual.startswith(name) else f"_{name}"
            record([name], f"compare{suffix}.json", device, facts)
    if args.record and layers:
        record(list(layers), "compare_layers.json", device, of_layers)


if __name__ == "__main__":
    cli.entry(main)
