"""What a run says to the person who watches it, and how it hears their Ctrl-C."""

import math
import os
import shlex
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import torch

from common.history import counted, describe, validation_metrics

FEW_STEPS = 20  # in so few, hardly any network learns anything


class CtrlC:
    """Between `install()` and `remove()`, the first Ctrl-C only sets `pressed`, so that the step
    under way can end; a second one stops at once."""

    def __init__(self):
        self.pressed, self.previous = False, None

    def install(self) -> None:
        def handle(number, frame):
            if self.pressed:
                raise KeyboardInterrupt("stopped without saving")
            self.pressed = True

        with suppress(ValueError):  # not in the main thread: Ctrl-C stays as it is
            self.previous = signal.signal(signal.SIGINT, handle)

    def remove(self) -> None:
        if self.previous is not None:
            signal.signal(signal.SIGINT, self.previous)


def command(script: Path, run_dir: Path, *flags: str) -> str:
    """What starts the script on a run, from the working directory."""
    path = str(script)
    with suppress(ValueError):  # Windows: on another drive
        path = min(os.path.relpath(script), path, key=len)
    join = subprocess.list2cmdline if os.name == "nt" else shlex.join  # what the shell takes apart
    return join(["python", path, *flags, "--run-dir", str(run_dir)])


def announce(run, parameters: int, train, validation) -> None:
    """What is about to happen, a fact a line."""
    args = run.args
    facts = {
        "model": f"{type(run.model).__name__}, {parameters:,} parameters",
        "data": f"{run.dataset}: {len(train):,} to train on, {len(validation or ()):,} held out "
        f"({getattr(train, 'unit', 'examples')})",
        "recipe": f"{counted(args.epochs, 'epoch')}, --batch-size {args.batch_size}, "
        f"learning rate {args.lr:g}, seed {args.seed}",
        "device": train.labels.device,
        "run folder": run.path,
    }
    if run.epoch >= args.epochs:
        facts["resumed"] = f"complete after {counted(run.epoch, 'epoch')}; more by --epochs"
    elif run.step:
        facts["resumed"] = f"in epoch {run.epoch + 1}, after {counted(run.step, 'step')}"
    if validation is not None:
        facts["an epoch's *"] = "the best so far on the examples held out"
    for name, fact in facts.items():
        print(f"{name:>12}  {fact}")
    print(flush=True)


def print_epoch(row: dict, metrics: dict, epochs: int, seconds: float, is_best: bool) -> None:
    """One line per epoch; a star marks the best so far."""
    validation = f"  val {describe(metrics)}" if metrics else ""
    print(
        f"epoch {row['epoch']:3d}/{epochs}{'*' if is_best and metrics else ' '}  "
        f"train {describe({'loss': row['train_loss']}).removesuffix(' nats')}{validation}  "
        f"{seconds:.1f} s",
        flush=True,
    )


def print_metrics(metrics: dict[str, float]) -> None:
    """What a test split gives, a line each."""
    for name, value in metrics.items():
        print(f"  {describe({name: value})}")


def print_end(run) -> None:
    """What was reached, and what to do next."""
    reached, best = describe(validation_metrics(run.best)), run.best["epoch"]
    if reached:
        print(f"\nbest epoch {best} on the validation split of {run.dataset}: {reached}")
    else:
        epochs = counted(run.epoch, "epoch")
        print(f"\n{epochs} on the training and validation splits of {run.dataset}")
    if run.step < FEW_STEPS:
        advice = "with more --epochs or a smaller --batch-size"
        print(f"(only {counted(run.step, 'step')} of learning: a network needs hundreds, {advice})")
    if run.dataset.endswith("-sample"):
        print("(a small sample of the dataset: not comparable with results on all of it)")
    print(f"now try:  {command(run.folder / 'test.py', run.path)}")


def stopped(run) -> str:
    """After Ctrl-C."""
    again = command(run.folder / "train.py", run.path, "--resume")
    return f"stopped after step {run.step}; go on with: {again}"


def largest_gradient(model) -> str:
    """ "12.3 in layers.0.weight": where a loss that is no longer finite came from"""
    if isinstance(model, torch.nn.Module):
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    else:
        gradients = model.gradients()
    largest = {name: gradient.abs().max().item() for name, gradient in gradients.items()}
    name = max(largest, key=lambda key: (math.isnan(largest[key]), largest[key]))
    return f"{largest[name]:.3g} in {name}"


def not_finite(run) -> str:
    return (
        f"the loss is no longer finite at step {run.step} (learning rate {run.lr:.3g}, "
        f"largest gradient {largest_gradient(run.model)}); try a smaller --lr. "
        f"The last good checkpoint stays in {run.path}"
    )


def is_finite(model, *numbers: float) -> bool:
    """Whether the weights and `numbers` are. A step's loss was that of the weights before it, so
    it does not tell whether the ones after it may be saved."""
    tensors = [t for t in model.state_dict().values() if t.is_floating_point()]
    return all(map(math.isfinite, numbers)) and all(bool(t.isfinite().all()) for t in tensors)
