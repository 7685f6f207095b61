"""torch.optim under the names of the flags: the twin of Transformer_Manual/utils/optim.py.

Its schedules' twins are in common/schedules.py.
"""

import torch
from torch import optim

from common.schedules import make_schedule

OPTIMIZERS = {"adam": optim.Adam, "adamw": optim.AdamW}


def learning_rates(name: str, lr: float, total: int, warmup: int = 0) -> list[float]:
    """The rate of every step, for a picture."""
    nothing = torch.optim.SGD([torch.zeros(1)], lr)
    schedule, rates = make_schedule(name, nothing, lr, total, warmup), []
    for _ in range(total):
        rates.append(schedule.get_last_lr()[0])
        schedule.step()
    return rates
