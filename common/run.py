"""A run and its folder: config.json, history.csv, curves.png, last and best checkpoint."""

import math
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import torch
from tqdm import tqdm

from common import checkpoint, console, device, distributed, folders
from common.data import facts
from common.errors import UserError, reading
from common.history import best_row, progress, to_csv
from common.metrics import RunningMean, parameter_count

PROGRESS = ("epoch", "step", "batch", "lr", "history")  # where a run stands
WHAT = {"model": "network", "optimizer": "optimiser"}  # that a checkpoint may be of another's
CHECKPOINT_SECONDS = 120  # within an epoch; every epoch ends with a checkpoint in any case


class Run:
    """Keeps what a training loop leaves behind, and lets it go on where it stopped.

    Used as a context: inside it, Ctrl-C waits for the step to end, saves, and says how to resume.
    `epoch`, `step` (of the whole run) and `batch` (of the epoch) say where the run stands. `data`
    is the split it learns, which a resumed run has to find as it was; `parts` are what else it
    needs to go on, by name: everything with a state_dict().
    """

    def __init__(self, folder: Path, args, model, optimizer, data, **parts):
        self.folder, self.args, self.model, self.optimizer = folder, args, model, optimizer
        self.dataset, self.flags = folders.dataset_name(vars(args)), folders.shaping(vars(args))
        self.data = facts(data)
        self.parts = {name: part for name, part in parts.items() if part is not None}
        self.epoch, self.step, self.batch, self.lr = 0, 0, 0, 0.0
        self.train_loss, self.history, self.ctrl_c = RunningMean(), [], console.CtrlC()
        self.seconds, self.started, self.bar = 0.0, time.monotonic(), None
        with ExitStack() as held:  # the folder: given up again if anything goes wrong
            self.begin(held)
            self.held = held.pop_all()

    def begin(self, held: ExitStack) -> None:
        """Take the run's folder while `held` is open, and go on where it stands if asked to."""
        args, self.path = self.args, Path(self.args.run_dir or "")
        if distributed.is_first():
            self.path = folders.take(self.folder / "runs", args, self.dataset, held)
        if args.resume:
            self.load()
            if args.epochs < self.epoch + (self.batch > 0):
                raise UserError(f"--epochs {args.epochs} is less than {self.path} has behind it")
        else:
            place = next(iter(self.model.state_dict().values())).device
            args.commit, args.environment = device.git_commit(), device.environment(place)
        if distributed.is_first():
            folders.write_config(self.path, self.folder, vars(args))
        else:  # these draw random numbers of their own
            device.seed_everything(distributed.own_seed(args.seed, self.step))
        self.save(history_only=args.resume)  # a run can be resumed from its first moment

    def announce(self, train, validation) -> None:
        """Print what is about to happen."""
        console.announce(self, parameter_count(self.model), train, validation)

    def __enter__(self) -> "Run":
        self.ctrl_c.install()
        return self

    def __exit__(self, kind, error, trace) -> None:
        if self.bar is not None:
            self.bar.close()
        self.ctrl_c.remove()
        self.held.close()
        device.check_compiler(error)

    def progress(self, batches: Iterable, total: int) -> Iterator:
        """Go through an epoch's batches, with a progress bar where somebody watches."""
        watched = sys.stderr.isatty() and distributed.is_first()
        self.bar = tqdm(
            batches, total=total, initial=self.batch, desc=f"epoch {self.epoch + 1}", leave=False,
            disable=not watched, unit="step", dynamic_ncols=True,
        )  # fmt: skip
        yield from self.bar

    def log_step(self, loss: torch.Tensor, count: int, lr: float) -> None:
        """After each step: its mean loss over `count` examples, and the learning rate.

        Raises UserError when the loss is not finite; the last good checkpoint stays.
        """
        self.step, self.batch, self.lr = self.step + 1, self.batch + 1, lr
        self.train_loss.add(distributed.total(loss.detach()) / distributed.world_size(), count)
        pressed = self.ctrl_c.pressed  # asked once: what comes later is seen after the next step
        due = pressed or time.monotonic() - self.last_save > CHECKPOINT_SECONDS
        # .item() makes a GPU wait, so there it is done now and then; a NaN stays in the sum
        if loss.device.type == "cpu" or self.batch % 20 == 0 or due:
            if not math.isfinite(self.train_loss.value):
                raise UserError(console.not_finite(self))
            if self.bar is not None and not self.bar.disable and self.batch % 20 == 0:
                self.bar.set_postfix(loss=f"{self.train_loss.value:.4f}", refresh=False)
        if due:
            if not console.is_finite(self.model):
                raise UserError(console.not_finite(self))
            self.save()
        if pressed:
            self.draw_curves()
            raise KeyboardInterrupt(console.stopped(self))

    def log_epoch(self, train_accuracy: float | None = None, **metrics: float) -> None:
        """After each epoch: print a line, keep the history, save `last` and perhaps `best`. The
        `metrics` are the validation split's, `train_accuracy` the training split's if measured."""
        if not console.is_finite(self.model, self.train_loss.value, *metrics.values()):
            raise UserError(console.not_finite(self))
        seconds = self.seconds + time.monotonic() - self.started
        took = seconds - (self.history[-1]["seconds"] if self.history else 0)
        row = {
            "epoch": self.epoch + 1, "dataset": self.dataset, "train_loss": self.train_loss.value,
            **({} if train_accuracy is None else {"train_accuracy": train_accuracy}),
            **{f"validation_{name}": value for name, value in metrics.items()},
            "lr": self.lr, "seconds": round(seconds, 3),
        }  # fmt: skip
        self.history.append(row)
        console.print_epoch(row, metrics, self.args.epochs, took, is_best=self.best is row)
        self.epoch, self.batch, self.train_loss = self.epoch + 1, 0, RunningMean()
        if self.best is row and distributed.is_first():
            checkpoint.save(self.path / "best.safetensors", self.state())
        self.save()

    @property
    def best(self) -> dict:
        return best_row(self.history)

    def should_stop(self, patience: int) -> bool:
        """Early stopping: no better validation for `patience` epochs (0: never)."""
        return bool(patience and self.history) and self.epoch - self.best["epoch"] >= patience

    def finish(self) -> None:
        """Draw the curves, and say what was reached and what to do next."""
        self.draw_curves()
        console.print_end(self)

    def state(self) -> dict:
        """All that a checkpoint holds."""
        return {
            "dataset": self.dataset, "data": self.data, "flags": self.flags,
            "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(),
            **{name: part.state_dict() for name, part in self.parts.items()},
            **{name: getattr(self, name) for name in PROGRESS},
            "train_loss": [float(self.train_loss.total), self.train_loss.count],
            "seconds": self.seconds + time.monotonic() - self.started,
            "random": device.random_state(),
        }  # fmt: skip

    def save(self, history_only: bool = False) -> None:
        """Write last.safetensors and the history, each whole or not at all."""
        self.last_save = time.monotonic()
        if distributed.is_first() and not history_only:
            checkpoint.save(self.path / "last.safetensors", self.state())
        if distributed.is_first() and self.history:
            checkpoint.write_atomically(self.path / "history.csv", to_csv(self.history).encode())

    def load(self) -> None:
        """Take everything back from last.safetensors."""
        path = self.path / "last.safetensors"
        state = checkpoint.load(path, "model", "optimizer", *self.parts)
        with reading(path):
            checkpoint.check_same(path, state, self.data, "start without --resume")
            late = 20 * (self.flags.get("precision") == "float16")  # which leaves out the first few
            stepped = state["step"] >= late + self.flags.get("critic_steps", 1)
            for name, own in dict(model=self.model, optimizer=self.optimizer, **self.parts).items():
                checkpoint.restore(own, state[name], path, WHAT.get(name, name), stepped)
            vars(self).update(progress(state, *PROGRESS, "seconds"))
            self.train_loss = RunningMean(*state["train_loss"])
            device.set_random_state(state["random"])

    def draw_curves(self) -> None:
        """Write curves.png: the losses and the other metrics, epoch by epoch."""
        if self.history and distributed.is_first():
            from common.plots import draw_curves  # matplotlib is slow to import

            draw_curves(self.path / "curves.png", self.history)
