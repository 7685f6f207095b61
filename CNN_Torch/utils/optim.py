"""torch.optim, and Muon, under the names of the flags: the twin of CNN_Manual/utils/optim.py.

Its schedules' twins are in common/schedules.py.
"""

from functools import partial

import torch
from torch import nn, optim

from CNN_Torch.utils.muon import Muon, muon

OPTIMIZERS = {
    "sgd": optim.SGD,
    "momentum": partial(optim.SGD, momentum=0.9),
    "nesterov": partial(optim.SGD, momentum=0.9, nesterov=True),
    "adagrad": optim.Adagrad,
    "rmsprop": optim.RMSprop,
    "adam": optim.Adam,
    "adamw": optim.AdamW,
    "muon": Muon,
}


def make_optimizer(
    name: str, model: nn.Module, lr: float, weight_decay: float, precision: str = "float32"
) -> optim.Optimizer:
    """The optimiser of all parameters. Muon has to know which of them are hidden matrices; and
    where the network is computed in bfloat16, so is its iteration, as Jordan et al. have it. (The
    twin rounds the products alone, by autocast.)"""
    if name == "muon":
        groups = [{"params": list(model.parameters())}]
        dtype = torch.bfloat16 if precision == "bfloat16" else None
        return muon(model, groups, lr=lr, weight_decay=weight_decay, dtype=dtype)
    return OPTIMIZERS[name](model.parameters(), lr=lr, weight_decay=weight_decay)
