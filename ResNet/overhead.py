"""How much of a step is not the network: this script takes train.py's flags.

It runs train.py with them, in a run folder that is thrown away, and prints the
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

if not __package__:  # started by its path
    import start  # noqa: F401

from common import cli
from common.data import Split
from common.run import Run

FOLDER = Path(__file__).resolve().parent
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


def measure(flags: list) -> Clock:
    """Run this folder's training with everything timed that is not the network."""
    train, clock = importlib.import_module(f"{FOLDER.name}.train"), Clock()
    streamed = importlib.import_module(f"{FOLDER.name}.dataset.streamed").Streamed

    def timed(holder, function: str, name: str):
        return patch.object(holder, function, clock.time(name)(getattr(holder, function)))

    with (
        tempfile.TemporaryDirectory() as place,
        timed(train.augmentation.Augmentation, "__call__", "augmentation"),
        timed(train.Normalize, "__call__", "normalisation"),
        timed(Run, "log_step", "logging"),
        patch.object(Split, "batches", clock.wrap_batches(Split.batches)),
        patch.object(streamed, "batches", clock.wrap_batches(streamed.batches)),
    ):
        train.main([*map(str, flags), "--run-dir", f"{place}/run"])
    return clock


def main(argv=None):
    clock = measure(sys.argv[1:] if argv is None else argv)
    print(f"\n{clock.steps} steps, {1000 * clock.total / clock.steps:.1f} ms each, of which")
    for name in PARTS:
        seconds = clock.seconds[name]
        print(f"{name:>14} {1000 * seconds / clock.steps:7.2f} ms {seconds / clock.total:7.2%}")
    print(f"{'together':>14} {sum(clock.seconds.values()) / clock.total:18.2%}")


if __name__ == "__main__":
    cli.entry(main)
