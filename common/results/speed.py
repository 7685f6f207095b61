"""How fast this machine learns: `python -m common.results.speed` prints one table.

Of CNNs: seconds to a fixed validation accuracy, by train.py with the dataset's default recipe and
seed 0: the history's at the first epoch that reaches it, with validation and checkpoints, without
the reading of data. Of Transformers: tokens that the loss counts, a second, in training steps on a
random batch (that of common.results.compare). A stand-in's figures are not the dataset's.

GFLOP/s are the products and convolutions of a step over its time, in the last epoch; the share is
that of the machine's own float32 rate with large square matrices. A GPU's convolutions take TF32
by default, which is faster: there it may pass 100 %.
"""

import contextlib
import importlib
import io
import math
import statistics
import sys
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

import pandas
import torch
from torch.utils.flop_counter import FlopCounterMode

from common import checkpoint, cli
from common import device as devices
from common.results.compare import timings
from common.results.compare_steps import TRANSFORMERS, TWINS, make_pair
from common.run import Run

RUNS = ("CNN_Manual", "CNN_Torch", "ResNet")
TARGETS = {"mnist": 0.99, "mnist-sample": 0.95, "cifar10": 0.85, "shapes": 0.95}
QUICK = ("--dataset", "shapes", "--epochs", "1", "--subset", "64", "--batch-size", "32")
IN_PLACE = {torch.ops.aten.addmm_: lambda c, a, b, **_: 2 * math.prod(a) * b[1]}  # not known there
COLUMNS = {
    "network": "{}", "data": "{}", "target": "{:.0%}", "reached": "{}", "accuracy": "{:.2%}",
    "epochs": "{}", "seconds": "{:.1f}", "steps/s": "{:.1f}", "tokens/s": "{:,.0f}",
    "GFLOP/s": "{:,.0f}", "share": "{:.0%}",
}  # fmt: skip


class Reached(Exception):
    """The target: the training may stop."""


def train(folder: str, device: torch.device, *flags: str) -> dict:
    """The row of one folder's training, until it reaches the dataset's target or ends."""
    counter, row = FlopCounterMode(display=False, custom_mapping=IN_PLACE), {"network": folder}
    progress, log_epoch = Run.progress, Run.log_epoch

    def timed(run, batches, total):
        start, first = time.perf_counter(), run.step
        for batch in progress(run, batches, total):
            with counter if run.step == 1 else contextlib.nullcontext():  # of one step alone
                yield batch
        devices.synchronize(device)
        row["steps/s"] = (run.step - first) / (time.perf_counter() - start)

    def watched(run, **metrics):
        log_epoch(run, **metrics)
        row.update(data=run.dataset, target=TARGETS[run.dataset], accuracy=metrics["accuracy"])
        row.update(epochs=run.epoch, seconds=run.history[-1]["seconds"], reached="no")
        if row["accuracy"] >= row["target"]:
            row["reached"] = "yes"
            raise Reached

    with (
        tempfile.TemporaryDirectory() as place,
        patch.object(Run, "progress", timed),
        patch.object(Run, "log_epoch", watched),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.suppress(Reached),
    ):
        where = ["--device", device.type, "--run-dir", str(Path(place) / "run")]
        importlib.import_module(f"{folder}.train").main([*where, *flags])
    return {**row, "GFLOP/s": counter.get_total_flops() * row["steps/s"] / 1e9}


def train_twins(name: str, device: torch.device, batch_size: int, steps: int) -> list[dict]:
    """The rows of a Transformer by hand and of PyTorch's, on one batch."""
    pair = make_pair(name, torch.float32, device)
    batch = TWINS[name].make_batch(batch_size, pair[1].model, torch.float32, device)
    tokens = int((batch[1] >= 0).sum())  # labels that do not count are below 0
    with FlopCounterMode(display=False) as counter:  # it does not know all of PyTorch's attentions
        pair[0](*batch)
    gflop = counter.get_total_flops() / 1e9
    rows, seconds_of = [], timings(pair, batch, device, steps).values()
    for folder, seconds in zip(TWINS[name][:2], seconds_of, strict=True):
        rate, row = 1 / statistics.median(seconds), {"network": f"{folder} {name}"}
        rows.append({**row, "steps/s": rate, "tokens/s": tokens * rate, "GFLOP/s": gflop * rate})
    return rows


def matmul_gflops(device: torch.device, dtype: torch.dtype, size: int) -> float | None:
    """10^9 additions and multiplications a second; None where the device has no such products."""
    with contextlib.suppress(RuntimeError, TypeError):
        seconds, (a, b) = [], torch.randn(2, size, size, device=device).to(dtype)
        for _ in range(10):
            devices.synchronize(device)
            start = time.perf_counter()
            a @ b
            devices.synchronize(device)
            seconds.append(time.perf_counter() - start)
        return 2 * size**3 / statistics.median(seconds) / 1e9


def main(argv=None):
    parser = cli.Parser(__doc__.splitlines()[0])
    add = parser.add_argument
    add("--device", default="auto", help="auto, cpu, cuda or mps")
    add("--quick", action="store_true", help="a few steps of each: to see that it works")
    add("--json", metavar="FILE", help="write the figures into this file as well")
    args = parser.parse_args(argv)
    if args.json and (Path(args.json).is_dir() or not Path(args.json).parent.is_dir()):
        raise cli.UserError(f"--json {args.json}: no file can be written there")
    device = devices.select_device(args.device)
    devices.seed_everything(0)
    facts = devices.environment(device)
    size = 256 if args.quick else 2048 if device.type == "cpu" else 8192
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    matmul = {name: matmul_gflops(device, dtype, size) for name, dtype in dtypes.items()}
    rows, flags = [], QUICK if args.quick else ()
    for folder in RUNS:
        print(f"{folder} learns …", file=sys.stderr, flush=True)
        try:
            rows.append(train(folder, device, *flags))
        except ModuleNotFoundError as error:  # kornia, on a machine made for something else
            print(f"{folder} is left out: {error}", file=sys.stderr)
    for name, twins in TWINS.items():
        if twins.manual in TRANSFORMERS:
            rows += train_twins(name, device, *((2, 2) if args.quick else (twins.batch_size, 20)))
    rows = [{**row, "share": row["GFLOP/s"] / matmul["float32"]} for row in rows]
    print(f"{facts.get('gpu', facts['processor'])}, torch {facts['torch']}, {device.type}")
    rates = ", ".join(f"{name} {rate:,.0f} GFLOP/s" for name, rate in matmul.items() if rate)
    print(f"products of {size} x {size} matrices: {rates}\n")
    cells = [[how.format(row[n]) if n in row else "" for n, how in COLUMNS.items()] for row in rows]
    print(pandas.DataFrame(cells, columns=list(COLUMNS)).to_string(index=False))
    if args.json:
        figures = {"commit": devices.git_commit(), "environment": facts, "matmul_gflops": matmul}
        checkpoint.write_json(Path(args.json), {**figures, "quick": args.quick, "rows": rows})


if __name__ == "__main__":
    cli.entry(main)
