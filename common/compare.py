"""Twins side by side: `python -m common.compare MLP`.

Both get the same weights and the same batches, in one process. Printed are the largest differences
in loss and gradients, the time per training step, and the lines of code. --record writes the
figures to results/compare.json of the hand-written folder (of a second network, with its name), for
the README.
"""

import ast
import importlib
import inspect
import json
import statistics
import time
from pathlib import Path

import torch

from common import checkpoint, cli
from common.compare_steps import TRANSFORMERS, TWINS, ManualStep, TorchStep
from common.data import ROOT
from common.device import seed_everything, select_device
from common.record import environment, git_commit


def make_pair(name: str, dtype: torch.dtype, device: torch.device, lr: float = 1e-3, **kwargs):
    """A step of each twin, from the same weights. `kwargs` go to both constructors."""
    manual_folder, torch_folder, class_name = TWINS[name][:3]
    manual = getattr(importlib.import_module(f"{manual_folder}.model"), class_name)(**kwargs)
    native = getattr(importlib.import_module(f"{torch_folder}.model"), class_name)(**kwargs)
    native.load_state_dict(manual.state_dict())
    manual.to(device=device, dtype=dtype).train()
    native.to(device=device, dtype=dtype).train()
    return ManualStep(manual_folder, manual, lr), TorchStep(native, lr)


def no_dropout(name: str) -> dict[str, float]:
    """The arguments with which the network drops nothing."""
    network = getattr(importlib.import_module(f"{TWINS[name].native}.model"), TWINS[name].network)
    return {key: 0.0 for key in inspect.signature(network).parameters if key.endswith("dropout")}


def differences(name: str, device: torch.device, batch_size: int, steps: int = 10) -> dict:
    """The largest differences over `steps` steps in float64 (float32 on MPS).

    `loss` is absolute, in nats; `gradient` is relative to the largest gradient of its tensor.
    Both networks drop the same values, because both draw from the same seed; but PyTorch's
    attention, from 2.5 on, draws in another way, and so do its kernels for a GPU: there nothing is
    dropped.
    """
    dtype = torch.float32 if device.type == "mps" else torch.float64
    newer = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 5)
    otherwise = device.type != "cpu" or (newer and TWINS[name].manual in TRANSFORMERS)
    manual, native = make_pair(name, dtype, device, **(no_dropout(name) if otherwise else {}))
    loss_difference = gradient_difference = 0.0
    for step in range(steps):
        batch = TWINS[name].make_batch(batch_size, native.model, dtype, device)
        losses = []
        for twin in (manual, native):
            torch.manual_seed(step)
            losses.append(twin(*batch))
        loss_difference = max(loss_difference, (losses[0] - losses[1]).abs().item())
        expected = native.gradients()
        for key, gradient in manual.gradients().items():
            scale = expected[key].abs().max().clamp(min=1e-12)
            difference = ((gradient - expected[key]).abs().max() / scale).item()
            # a bias before batch normalisation has gradient 0: there, only rounding is left
            if max(expected[key].abs().max(), gradient.abs().max()) > 1e-10:
                gradient_difference = max(gradient_difference, difference)
    return {"loss": loss_difference, "gradient": gradient_difference}


def timings(name: str, device: torch.device, batch_size: int, steps: int) -> dict:
    """Seconds of each training step in float32, the twins taking turns."""
    twins = dict(zip(("manual", "torch"), make_pair(name, torch.float32, device), strict=True))
    batch = TWINS[name].make_batch(batch_size, twins["torch"].model, torch.float32, device)
    return time_steps(twins, batch, device, steps)


def time_steps(
    twins: dict, batch: tuple, device: torch.device, steps: int, warmup: int = 5
) -> dict:
    """Seconds of each of the twins' training steps on this batch, in turns."""
    seconds = {twin: [] for twin in twins}
    for step in range(warmup + steps):
        for twin, train_step in twins.items():
            synchronize(device)
            start = time.perf_counter()
            train_step(*batch)
            synchronize(device)
            if step >= warmup:
                seconds[twin].append(time.perf_counter() - start)
    return seconds


def synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()


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


def main(argv=None):
    parser = cli.Parser(__doc__.splitlines()[0])
    parser.add_argument("twins", choices=TWINS, help="which pair")
    parser.add_argument("--batch-size", type=cli.positive_int, help="examples per step")
    parser.add_argument("--steps", type=cli.positive_int, default=20, help="steps to time")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--record", action="store_true", help="write results/compare.json")
    args = parser.parse_args(argv)
    device = select_device(args.device)
    seed_everything(0)

    manual_folder, torch_folder, network, _, usual_size, examples = TWINS[args.twins]
    batch_size = args.batch_size or usual_size
    difference = differences(args.twins, device, batch_size)
    seconds = timings(args.twins, device, batch_size, args.steps)
    medians = {twin: statistics.median(values) for twin, values in seconds.items()}
    result = {
        "command": f"python -m common.compare {args.twins}",
        "commit": git_commit(),
        "twins": {"manual": manual_folder, "torch": torch_folder},
        **({"network": network, "examples": examples} if examples else {}),
        "batch_size": batch_size,
        "steps": args.steps,
        "step_milliseconds": {twin: round(1e3 * value, 2) for twin, value in medians.items()},
        "step_ratio": round(medians["manual"] / medians["torch"], 3),
        "largest_difference": difference,
        "lines": {"manual": lines_of_code(manual_folder), "torch": lines_of_code(torch_folder)},
        "environment": environment(device),
    }
    for twin in ("manual", "torch"):
        print(
            f"{result['twins'][twin]:12}  {result['step_milliseconds'][twin]:8.2f} ms per step  "
            f"{result['lines'][twin]:5d} lines"
        )
    print(f"time ratio {result['step_ratio']:.2f} (medians of {args.steps} steps)")
    print(f"largest difference in loss {difference['loss']:.1e}, in gradients "
          f"{difference['gradient']:.1e} (relative)")  # fmt: skip
    if args.record:
        is_second = args.twins != manual_folder.split("_")[0]
        name = f"compare_{network}.json" if is_second else "compare.json"
        path = Path(ROOT, manual_folder, "results", name)
        path.parent.mkdir(exist_ok=True)
        checkpoint.write_atomically(path, (json.dumps(result, indent=2) + "\n").encode())
        print(f"recorded in {path.relative_to(ROOT)}")


if __name__ == "__main__":
    cli.entry(main)
