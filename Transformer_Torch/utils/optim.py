"""torch.optim and Muon under the flags' names: the twin of Transformer_Manual/utils/optim.py.

Its schedules' twins are in common/schedules.py.
"""

import torch
from torch import nn, optim

from common.schedules import make_schedule
from Transformer_Torch.utils.muon import Muon, muon

OPTIMIZERS = {"adam": optim.Adam, "adamw": optim.AdamW, "muon": Muon}


def make_optimizer(
    name: str, model: nn.Module, lr: float, weight_decay: float, beta2: float
) -> optim.Optimizer:
    """The optimiser of all parameters; Muon has to know which of them are hidden matrices."""
    options = dict(lr=lr, betas=(0.9, beta2), weight_decay=weight_decay)
    if name == "muon":
        return muon(model, [{"params": list(model.parameters())}], **options)
    return OPTIMIZERS[name](model.parameters(), **options)


def learning_rates(name: str, lr: float, total: int, warmup: int = 0) -> list[float]:
    """The rate of every step, for a picture."""
    nothing = torch.optim.SGD([torch.zeros(1)], lr)
    schedule, rates = make_schedule(name, nothing, lr, total, warmup), []
    for _ in range(total):
        rates.append(schedule.get_last_lr()[0])
        schedule.step()
    return rates
