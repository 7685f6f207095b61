"""torch.optim and Muon under the flags' names: the twin of Transformer_Manual/utils/optim.py.

Its schedules' twins are in common/schedules.py.
"""

import torch
from torch import nn, optim

from common.schedules import SCHEDULES, make_schedule
from Transformer_Torch.utils.muon import Muon, muon

OPTIMIZERS = {"adam": optim.Adam, "adamw": optim.AdamW, "muon": Muon}
TRANSFORMER_SCHEDULES = (*SCHEDULES, "inverse-sqrt")


def make_optimizer(
    name: str, model: nn.Module, lr: float, weight_decay: float, beta2: float,
    precision: str = "float32",
) -> optim.Optimizer:  # fmt: skip
    """The optimiser of all parameters. Muon has to know which of them are hidden matrices; and
    where the network is computed in bfloat16, so is its iteration, as Jordan et al. have it. (The
    twin rounds the products alone, by autocast.)"""
    options = dict(lr=lr, betas=(0.9, beta2), weight_decay=weight_decay)
    if name == "muon":
        dtype = torch.bfloat16 if precision == "bfloat16" else None
        return muon(model, [{"params": list(model.parameters())}], dtype=dtype, **options)
    return OPTIMIZERS[name](model.parameters(), **options)


def inverse_sqrt(optimizer: optim.Optimizer, warmup: int, start: int = 0):
    """lr · min(t/w, √(w/t)) in step t = 1, 2, … with w = warmup + 1: up in a line to lr, then down
    with the root (Vaswani et al., 2017, equation 3, where lr is 1/√(D w)). It begins after `start`
    steps."""
    w = warmup + 1

    def factor(steps: int) -> float:
        t = start + steps + 1
        return min(t / w, (w / t) ** 0.5)

    return optim.lr_scheduler.LambdaLR(optimizer, factor)


def learning_rate(
    name: str, optimizer: optim.Optimizer, lr: float, total: int, warmup: int = 0, start: int = 0
):
    """`make_schedule`, or "inverse-sqrt", of which the warm-up is a part."""
    if name == "inverse-sqrt":
        return inverse_sqrt(optimizer, warmup, start)
    return make_schedule(name, optimizer, lr, total, warmup, start)


def learning_rates(name: str, lr: float, total: int, warmup: int = 0) -> list[float]:
    """The rate of every step, for a picture."""
    nothing = torch.optim.SGD([torch.zeros(1)], lr)
    schedule, rates = learning_rate(name, nothing, lr, total, warmup), []
    for _ in range(total):
        rates.append(schedule.get_last_lr()[0])
        schedule.step()
    return rates
