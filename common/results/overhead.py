"""How much of a step is not the network: `python -m common.results.overhead ResNet [flags]`.

Runs the folder's train.py with the flags given, in a folder that is thrown away, and prints the
share of its steps that went into batches, augmentation, normalisation and logging; the rest is
forward, backward and optimiser. Evaluation and checkpoints between epochs are left out.
"""

import importlib
import sys
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

from common import cli
from common.data import Split
from common.errors import UserError
from common.run import Run

FOLDERS = ("ResNet", "ViT")


class Clock:
    """Adds up the seconds of what it wraps, by name."""

    def __init__(self):
        self.seconds, self.steps, self.total, self.evaluating = {}, 0, 0.0, False

    def add(self, name: str, start: float) -> None:
        if not self.evaluating:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def wrap(self, name: str, function):
        def timed(*args, **kwargs):
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.add(name, start)

        return timed

    def pause(self, function):
        """Times nothing while the function runs."""

        def untimed(*args, **kwargs):
            self.evaluating = True
            try:
                return function(*args, **kwargs)
            finally:
                self.evaluating = False

        return untimed

    def wrap_batches(self, batches):
        """Times each batch, and the whole epoch from its first batch to the last step's end."""

        def timed(*args, **kwargs):
            iterator, epoch = batches(*args, **kwargs), time.perf_counter()
            while True:
                start = time.perf_counter()
                batch = next(iterator, None)
                self.add("batches", start)
                if batch is None:
                    self.total += time.perf_counter() - epoch
                    return
                yield batch
                self.steps += 1

        return timed


def measure(folder: str, flags: list[str]) -> Clock:
    """Run the folder's training with everything timed that is not the network."""
    train, clock = importlib.import_module(f"{folder}.train"), Clock()
    Augmentation, Normalize = train.augmentation.Augmentation, train.Normalize
    with (
        tempfile.TemporaryDirectory() as place,
        patch.object(Augmentation, "__call__", clock.wrap("augmentation", Augmentation.__call__)),
        patch.object(Normalize, "__call__", clock.wrap("normalisation", Normalize.__call__)),
        patch.object(Run, "log_step", clock.wrap("logging", Run.log_step)),
        patch.object(Split, "batches", clock.wrap_batches(Split.batches)),
        patch.object(train, "predict_all", clock.pause(train.predict_all)),
    ):
        train.main([*flags, "--run-dir", str(Path(place) / "run")])
    return clock


def main(argv=None):
    argv = sys.argv[1:] if argv is None else list(map(str, argv))
    if not argv or argv[0] not in FOLDERS:
        raise UserError(f"name one of {', '.join(FOLDERS)}, then its train.py's own flags")
    clock = measure(argv[0], argv[1:])
    names = ("batches", "augmentation", "normalisation", "logging")
    outside = {name: clock.seconds.get(name, 0.0) for name in names}
    print(f"\n{clock.steps} steps, {1000 * clock.total / clock.steps:.1f} ms each, of which")
    for name, seconds in outside.items():
        print(f"{name:>14} {1000 * seconds / clock.steps:7.2f} ms {seconds / clock.total:7.2%}")
    print(f"{'together':>14} {sum(outside.values()) / clock.total:18.2%}")


if __name__ == "__main__":
    cli.entry(main)
