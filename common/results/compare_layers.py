"""A hand-written layer beside PyTorch's: `python -m common.results.compare_layers`.

RNN, GRU and LSTM: for layers whose folder has no twin. Both get the same weights and inputs, in one
process, and take turns; a step is forward and backward, of PyTorch's by autograd. --record writes
the figures to results/compare_layers.json of the hand-written folder, for its README.
"""

import importlib
import json
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from common import checkpoint, cli
from common.data import ROOT
from common.device import environment, git_commit, seed_everything, select_device
from common.results.compare import synchronize

FOLDER, LAYERS = "RNN_Manual", ("RNN", "GRU", "LSTM")


class Pair:
    """The layer `name` of both kinds, from the same weights."""

    def __init__(self, name: str, dtype: torch.dtype, device: torch.device, *sizes: int):
        self.manual = getattr(importlib.import_module(f"{FOLDER}.utils.layers"), name)(*sizes)
        self.native = getattr(nn, name)(*sizes)
        self.native.load_state_dict(self.manual.state_dict())
        self.manual.to(device=device, dtype=dtype)
        self.native.to(device=device, dtype=dtype)

    def step_manual(self, x: Tensor, grad_output: Tensor) -> dict[str, Tensor]:
        """The output and all gradients, by name."""
        output, _ = self.manual.forward(x)
        grad_x, _ = self.manual.backward(grad_output)
        return {"output": output, "x": grad_x, **self.manual.gradients()}

    def step_torch(self, x: Tensor, grad_output: Tensor) -> dict[str, Tensor]:
        x = x.detach().requires_grad_()
        output, _ = self.native(x)
        self.native.zero_grad()
        output.backward(grad_output)
        gradients = {name: parameter.grad for name, parameter in self.native.named_parameters()}
        return {"output": output.detach(), "x": x.grad, **gradients}


def make_inputs(args, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    shape = (args.window, args.batch_size)
    x = torch.randn(*shape, args.input_size, dtype=dtype, device=device)
    return x, torch.randn(*shape, args.hidden_size, dtype=dtype, device=device)


def difference(name: str, args, device: torch.device) -> float:
    """The largest difference of output and gradients in float64 (float32 on MPS), relative to the
    largest value of each tensor."""
    dtype = torch.float32 if device.type == "mps" else torch.float64
    pair = Pair(name, dtype, device, args.input_size, args.hidden_size)
    inputs = make_inputs(args, dtype, device)
    ours, theirs = pair.step_manual(*inputs), pair.step_torch(*inputs)
    return max(
        ((ours[key] - value).abs().max() / value.abs().max()).item()
        for key, value in theirs.items()
    )


def timings(name: str, args, device: torch.device, warmup: int = 3) -> dict[str, float]:
    """The median milliseconds of a step in float32."""
    pair = Pair(name, torch.float32, device, args.input_size, args.hidden_size)
    inputs = make_inputs(args, torch.float32, device)
    steps = {"manual": pair.step_manual, "torch": pair.step_torch}
    seconds = {kind: [] for kind in steps}
    for number in range(warmup + args.steps):
        for kind, step in steps.items():
            synchronize(device)
            start = time.perf_counter()
            step(*inputs)
            synchronize(device)
            if number >= warmup:
                seconds[kind].append(time.perf_counter() - start)
    return {kind: round(1e3 * statistics.median(values), 2) for kind, values in seconds.items()}


def main(argv=None):
    parser = cli.Parser(__doc__.splitlines()[0])
    add = parser.add_argument
    add("--batch-size", type=cli.positive_int, default=64, help="sequences")
    add("--window", type=cli.positive_int, default=128, help="steps of each")
    add("--input-size", type=cli.positive_int, default=64, help="features that go in")
    add("--hidden-size", type=cli.positive_int, default=256, help="units")
    add("--steps", type=cli.positive_int, default=20, help="training steps to time")
    add("--device", default="auto", help="auto, cpu, cuda or mps")
    add("--record", action="store_true", help="write results/compare_layers.json")
    args = parser.parse_args(argv)
    device = select_device(args.device)
    seed_everything(0)

    layers = {}
    for name in LAYERS:
        milliseconds = timings(name, args, device)
        layers[name] = {
            "step_milliseconds": milliseconds,
            "step_ratio": round(milliseconds["manual"] / milliseconds["torch"], 3),
            "largest_difference": difference(name, args, device),
        }
        print(
            f"{name:>5}  by hand {milliseconds['manual']:8.2f} ms  nn.{name} + autograd "
            f"{milliseconds['torch']:8.2f} ms  ratio {layers[name]['step_ratio']:.2f}  "
            f"largest difference {layers[name]['largest_difference']:.1e}",
            flush=True,
        )
    if args.record:
        result = {
            "command": "python -m common.results.compare_layers",
            "commit": git_commit(),
            "batch_size": args.batch_size,
            "window": args.window,
            "input_size": args.input_size,
            "hidden_size": args.hidden_size,
            "steps": args.steps,
            "layers": layers,
            "environment": environment(device),
        }
        path = Path(ROOT, FOLDER, "results", "compare_layers.json")
        path.parent.mkdir(exist_ok=True)
        checkpoint.write_atomically(path, (json.dumps(result, indent=2) + "\n").encode())
        print(f"recorded in {path.relative_to(ROOT)}")


if __name__ == "__main__":
    cli.entry(main)
