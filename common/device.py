"""Which device to compute on, seeding, mixed precision, and what a measurement depends on."""

import os
import platform
import random
import subprocess
import warnings
from contextlib import nullcontext, suppress
from functools import cache
from pathlib import Path

import numpy
import torch

from common.errors import UserError

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("float32", "bfloat16", "float16")


def select_device(name: str = "auto") -> torch.device:
    """The device called `name`; "auto" takes CUDA, then MPS, then the CPU.

    Raises UserError for a device that this machine lacks, for which the installed torch was built
    without kernels (a GPU newer than the wheel), or on which it computes wrongly (MPS before torch
    2.4: pytorch/pytorch#118115). "auto" steps over such a device.
    """
    if name == "auto":
        usable = (d for d in ("cuda", "mps", "cpu") if problem(d, warn=True) is None)
        return torch.device(next(usable))
    if name not in DEVICES:
        raise UserError(f"unknown device {name!r}: choose from {', '.join(DEVICES)}")
    if (reason := problem(name)) is not None:
        raise UserError(f"--device {name}: {reason}; try --device auto")
    return torch.device(name)


def problem(name: str, warn: bool = False) -> str | None:
    """Why the device cannot be used, or None when it works."""
    if name == "cpu":
        return None
    present = torch.cuda.is_available() if name == "cuda" else torch.backends.mps.is_available()
    if not present:
        return f"there is no {name.upper()} device that torch {torch.__version__} can use"
    try:  # a wheel without kernels for this GPU is found out only by running one
        ones = torch.ones(2, 2, 2, device=name)
        view = torch.zeros_like(ones[0]).T  # its values do not lie in the usual order
        if view.addcmul_(*ones).sum().item() != 4:
            raise RuntimeError("what is added to a view is lost")
    except (RuntimeError, AssertionError) as error:  # AssertionError: a wheel without CUDA
        reason = f"torch {torch.__version__} fails on it ({str(error).splitlines()[0]})"
        if warn:
            warnings.warn(f"{name.upper()} is there, but {reason}", stacklevel=3)
        return reason
    return None


def seed_everything(seed: int) -> None:
    """Seed python, numpy and torch (every device), so that a run can be repeated."""
    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)


def autocast(device: torch.device, precision: str = "float32"):
    """A context in which matrix products and convolutions compute in `precision`. A network that
    was trained in float16 is evaluated in float32 on a CPU: see `grad_scaler`."""
    if precision == "float32" or (precision == "float16" and device.type == "cpu"):
        return nullcontext()
    try:
        return torch.autocast(device.type, dtype=getattr(torch, precision))
    except RuntimeError as error:  # MPS, before torch 2.5
        raise UserError(f"--precision {precision}: {str(error).splitlines()[0]}") from None


def grad_scaler(device: torch.device, precision: str = "float32") -> torch.amp.GradScaler:
    """Keeps small gradients from vanishing in float16; does nothing in other precisions. Raises
    UserError for float16 on a CPU, which is many times slower there, or absent."""
    if precision == "float16" and device.type == "cpu":
        raise UserError("--precision float16 is for GPUs; a CPU has float32 and bfloat16")
    return torch.amp.GradScaler(device.type, enabled=precision == "float16")


def random_state() -> dict:
    """Every random generator's state, as tensors and plain values that a checkpoint can hold."""
    name, keys, position, has_gauss, cached = numpy.random.get_state()
    version, internal, gauss = random.getstate()
    state = {
        "torch": torch.get_rng_state(),
        "numpy": [name, torch.from_numpy(keys.astype("int64")), position, has_gauss, cached],
        "python": [version, list(internal), gauss],
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    if torch.backends.mps.is_available():
        state["mps"] = torch.mps.get_rng_state()
    return state


def set_random_state(state: dict) -> None:
    """Put back what `random_state` returned; a device that is absent here is left out."""
    torch.set_rng_state(state["torch"])
    name, keys, position, has_gauss, cached = state["numpy"]
    numpy.random.set_state((name, keys.numpy().astype("uint32"), position, has_gauss, cached))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    if torch.cuda.is_available() and "cuda" in state:
        torch.cuda.set_rng_state_all(state["cuda"][: torch.cuda.device_count()])
    if torch.backends.mps.is_available() and "mps" in state:
        torch.mps.set_rng_state(state["mps"])


def compiled(model: torch.nn.Module, wanted: bool):
    """`torch.compile(model)` when wanted, sharing its parameters; else the model itself. Raises
    UserError where this torch cannot compile: on this Python, or without a C++ compiler."""
    try:
        if wanted:  # torch.compile is lazy: try it with something small
            torch.compile(torch.sin)(torch.ones(2, device=next(model.parameters()).device))
        return torch.compile(model) if wanted else model
    except Exception as error:  # whatever a compiler may raise
        raise not_compiled(error) from None


def not_compiled(error: Exception) -> UserError:
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return UserError(f"--compile: torch {torch.__version__} fails ({reason}); leave it out")


def check_compiler(error: BaseException | None) -> None:
    """Raises UserError if a compiled network raised this `error`. The first steps do: what a
    network needs is compiled when it is needed, and only then does this torch show if it can."""
    trace = error.__traceback__ if isinstance(error, Exception) else None
    while trace is not None:
        if trace.tb_frame.f_globals.get("__name__", "").startswith(("torch._dynamo", "torch._ind")):
            raise not_compiled(error) from None
        trace = trace.tb_next


def synchronize(device: torch.device) -> None:
    """Wait for what the device has been given to do, so that a clock can be read."""
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()


@cache  # what this process writes must not make its own commit "dirty"
def git_commit() -> str | None:
    """The commit of this clone, "-dirty" when files differ from it; None outside of git."""
    here = str(Path(__file__).parent)
    command = ["git", "-C", here, "describe", "--always", "--dirty", "--abbrev=12"]
    with suppress(OSError, subprocess.TimeoutExpired):
        found = subprocess.run(command, capture_output=True, text=True, timeout=20)
        return found.stdout.strip() or None


def environment(device: torch.device) -> dict:
    """The machine and versions that a measurement depends on."""
    processor = platform.processor() or platform.machine()
    with suppress(OSError, StopIteration):  # Linux says more
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(line for line in lines if line.startswith("model name"))[11:].strip(" \t:")
    facts = {
        "python": platform.python_version(), "torch": torch.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": f"{processor}, {os.cpu_count()} cores",
        "threads": torch.get_num_threads(), "device": device.type,
    }  # fmt: skip
    if device.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(device)
    return facts


def machine(environment: dict) -> str:
    """An environment in a few words: "NVIDIA H100, torch 2.3.1"."""
    threads = f"{environment['threads']} thread{'s' * (environment['threads'] > 1)}"
    where = environment.get("gpu") or f"{environment['processor']}, {threads}"
    return f"{where}, torch {environment['torch']}"
