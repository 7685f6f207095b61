"""torch.optim's schedules under the names of the flags; averaged weights."""

import warnings

from torch import nn
from torch.optim import lr_scheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def constant(optimizer, lr: float, total: int):
    return lr_scheduler.ConstantLR(optimizer, factor=1)


def step_decay(optimizer, lr: float, total: int):
    return lr_scheduler.StepLR(optimizer, step_size=max(1, -(-total // 3)), gamma=0.1)


def cosine(optimizer, lr: float, total: int):
    return lr_scheduler.CosineAnnealingLR(optimizer, T_max=total)


def one_cycle(optimizer, lr: float, total: int):
    return lr_scheduler.OneCycleLR(optimizer, max_lr=lr, total_steps=total, cycle_momentum=False)


SCHEDULES = {"constant": constant, "step": step_decay, "cosine": cosine, "one-cycle": one_cycle}


def make_schedule(name: str, optimizer, lr: float, total: int, warmup: int = 0, start: int = 0):
    """A scheduler over `total` steps, `warmup` of them first, that stands at step `start`.

    It is wound forward rather than loaded from a checkpoint, so that a resumed run may have other
    --epochs: like its hand-written twin, it depends on the step alone.
    """
    schedule = SCHEDULES[name](optimizer, lr, total - warmup)
    if warmup:
        for group in optimizer.param_groups:  # where the line ends; one-cycle may have no rise
            group["initial_lr"] = group["lr"]
        line = lr_scheduler.LinearLR(optimizer, start_factor=1 / (warmup + 1), total_iters=warmup)
        schedule = lr_scheduler.SequentialLR(optimizer, [line, schedule], milestones=[warmup])
    # SequentialLR's own call at the milestone; winding forward before the optimiser's first step
    warnings.filterwarnings("ignore", message="The epoch parameter in `scheduler.step")
    warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
    for _ in range(start):
        schedule.step()
    return schedule


def moving_average(model: nn.Module, decay: float, warmup: bool = False) -> AveragedModel | None:
    """An exponential moving average of the weights and buffers, to be updated after each step:
    average = decay · average + (1 − decay) · model. None for a decay of 0.

    With `warmup`, the decay of the n-th update is at most n/(9 + n), so that a short run's average
    is not one of its first weights.
    """
    if not decay:
        return None

    def update(averages, values, updates):  # `updates` of them were made before
        now = min(decay, (1 + int(updates)) / (10 + int(updates))) if warmup else decay
        get_ema_multi_avg_fn(now)(averages, values, updates)

    return AveragedModel(model, multi_avg_fn=update, use_buffers=True)
