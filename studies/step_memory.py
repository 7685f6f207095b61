"""The memory of a twin's training step, in a process of its own.

`python -m studies.step_memory MLP torch cpu '[128, {}]' '[4, {"hidden_sizes": [16]}]'` prints two
figures, in MB, of the first of these sizes (of a batch, and the arguments of the network):

tensors    the most bytes of tensors that were alive at once, counted by memory.py. It is exact and
           the same each time, but what a kernel takes for itself is not seen.
process    how far the process grew while it made the network and took some steps: the most memory
           that Linux counted (VmHWM), less what there was before. A step of the second sizes has
           loaded torch's code and threads by then. It has what kernels take; what was freed and
           used again is not seen. Nothing is known of a GPU's memory, or elsewhere than on Linux.
"""

import json
import sys
from itertools import repeat
from pathlib import Path
from types import SimpleNamespace

import torch

from common.results.compare_steps import PAIRS, make_pair
from studies.layer_times import TWINS
from studies.memory import peak_megabytes

STATUS = Path("/proc/self/status")
STEPS = 3


def megabytes(name: str) -> float | None:
    """What Linux counts of this process under that name."""
    lines = STATUS.read_text().splitlines() if STATUS.is_file() else []
    kilobytes = (int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
    return next((value * 1024 / 1e6 for value in kilobytes), None)


def build(name: str, twin: str, device: torch.device, size, sizes: dict) -> SimpleNamespace:
    """The twin with its batch, and its steps without an end; nothing of the other one stays."""
    pair = make_pair(name, torch.float32, device, **sizes)
    batch = PAIRS[name].make_batch(size, pair[1].model, torch.float32, device)
    step = pair[TWINS.index(twin)]
    return SimpleNamespace(model=step.model, steps=(step(*batch) for _ in repeat(None)))


def measure(name: str, twin: str, device: torch.device, sizes: list, small: list) -> dict:
    next(build(name, twin, device, *small).steps)
    before, learner = megabytes("VmRSS"), build(name, twin, device, *sizes)
    for _ in range(STEPS):
        next(learner.steps)
    most = megabytes("VmHWM")
    del learner
    tensors = peak_megabytes(lambda: build(name, twin, device, *sizes))
    grown = None if before is None or most is None else round(most - before, 1)
    return {"tensors": round(tensors, 1), "process": grown}


if __name__ == "__main__":
    name, twin, device, *words = sys.argv[1:]
    print(json.dumps(measure(name, twin, torch.device(device), *map(json.loads, words))))
