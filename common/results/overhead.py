"""How much of a step is not the network: `python -m common.results.overhead ResNet [flags]`.

Runs the folder's train.py with the flags given, in a folder that is thrown away, and prints the
share of its steps that went into batches, augmentation, normalisation and logging; the rest is
forward, backward and optimiser. Evaluation and checkpoints between epochs are left out.
"""

import importlib
import sys
import tempfile
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from unittest.mock import patch

from common import cli
from common.data import Split
from common.errors import UserError
from common.run import Run

FOLDERS = ("ResNet", "ViT")
PARTS = ("batches", "augmentation", "normalisation", "logging")


class Clock:
    """Adds up the seconds of what it times in the steps of the epochs, by name."""

    def __init__(self):
        self.seconds, self.steps, self.total, self.in_epoch = Counter(), 0, 0.0, False

    @contextmanager
    def time(self, name: str):
        """Times a block; as a decorator, each call of a function."""
        start = perf_counter()
        yield
        if self.in_epoch:  # so that evaluation between epochs does not count
            self.seconds[name] += perf_counter() - start

    def wrap_batches(self, batches):
        """Times each batch, and the whole epoch from its first batch to the last step's end."""

        def timed(*args, **kwargs):
            iterator, epoch, self.in_epoch = batches(*args, **kwargs), perf_counter(), True
            while True:
                with self.time("batches"):
                    batch = next(iterator, None)
                if batch is None:
                    self.total, self.in_epoch = self.total + perf_counter() - epoch, False
                    return
                yield batch
                self.steps += 1

        return timed


def measure(folder: str, flags: list[str]) -> Clock:
    """Run the folder's training with everything timed that is not the network."""
    train, clock = importlib.import_module(f"{folder}.train"), Clock()

    def timed(holder, function: str, name: str):
        return patch.object(holder, function, clock.time(name)(getattr(holder, function)))

    with (
        tempfile.TemporaryDirectory() as place,
        timed(train.augmentation.Augmentation, "__call__", "augmentation"),
        timed(train.Normalize, "__call__", "normalisation"),
        timed(Run, "log_step", "logging"),
        patch.object(Split, "batches", clock.wrap_batches(Split.batches)),
    ):
        train.main([*flags, "--run-dir", str(Path(place) / "run")])
    return clock


def main(argv=None):
    argv = sys.argv[1:] if argv is None else list(map(str, argv))
    if not argv or argv[0] not in FOLDERS:
        raise UserError(f"name one of {', '.join(FOLDERS)}, then its train.py's own flags")
    clock = measure(argv[0], argv[1:])
    print(f"\n{clock.steps} steps, {1000 * clock.total / clock.steps:.1f} ms each, of which")
    for name in PARTS:
        seconds = clock.seconds[name]
        print(f"{name:>14} {1000 * seconds / clock.steps:7.2f} ms {seconds / clock.total:7.2%}")
    print(f"{'together':>14} {sum(clock.seconds.values()) / clock.total:18.2%}")


if __name__ == "__main__":
    cli.entry(main)
