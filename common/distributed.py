"""The few lines that make a script run under torchrun, one process per GPU (or CPU process).

Each process computes its share of every batch, DistributedDataParallel averages the gradients, and
the process of rank 0 alone prints and writes. Without torchrun nothing here does anything.
"""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stdout

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from common.errors import UserError


@contextmanager
def processes(chosen: torch.device) -> Iterator[torch.device]:
    """Join the other processes, if torchrun started this one; gives the device that is this one's.

    Inside, every process but the first prints nothing to standard output.
    """
    if "LOCAL_RANK" not in os.environ:
        yield chosen
        return
    if chosen.type == "cuda":
        chosen = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(chosen)
    distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        with ExitStack() as stack:
            if not is_first():
                stack.enter_context(redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
            yield chosen
    finally:
        # gloo's threads may be letting go of the last tensors, for which they need the interpreter;
        # destroy_process_group() would wait for them and not give it to them
        time.sleep(0.5)
        distributed.destroy_process_group()


def is_distributed() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def rank() -> int:
    """This process's number, from 0."""
    return distributed.get_rank() if is_distributed() else 0


def world_size() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if is_distributed() else 1


def is_first() -> bool:
    """Whether this is the process that prints and writes."""
    return rank() == 0


def check_batch(batch_size: int, parts: int = 1) -> int:
    """How many examples a process computes at a time.

    Raises UserError when a batch cannot be dealt out evenly to all processes, `parts` times.
    """
    if batch_size % (parts * world_size()):
        among = f"{world_size()} process{'es' * (world_size() > 1)}"
        raise UserError(f"--batch-size {batch_size} cannot be split evenly: {among}, {parts} parts")
    return batch_size // (parts * world_size())


def parallel(model: nn.Module, sync_batch_norm: bool = False) -> nn.Module:
    """The model, with gradients averaged over all processes by backward().

    With `sync_batch_norm` its batch statistics are those of all processes (CUDA alone has that).
    """
    if not is_distributed():
        return model
    device = next(model.parameters()).device
    if sync_batch_norm:
        if device.type != "cuda":
            raise UserError("--sync-batch-norm needs CUDA devices")
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return DistributedDataParallel(model, [device.index] if device.type == "cuda" else None)


def synchronising(model: nn.Module, wanted: bool):
    """A context in which backward() leaves the averaging of gradients to a later one."""
    together = wanted or not isinstance(model, DistributedDataParallel)
    return nullcontext() if together else model.no_sync()


def total(values: Tensor) -> Tensor:
    """The sum over all processes."""
    if is_distributed():
        values = values.detach().clone()
        distributed.all_reduce(values)
    return values


def own_seed(seed: int, step: int) -> int:
    """What a process other than the first draws its own random numbers from, after `step` steps."""
    return (seed + 1_000_003 * rank() + 7_919 * step) % 2**32
