"""torch.optim, and Muon, under the names of the flags: the twin of MLP_Manual/utils/optim.py.

Its schedules' twins are in common/schedules.py.
"""

from functools import partial

from torch import nn, optim

from MLP_Torch.utils.muon import Muon, muon

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


def make_optimizer(name: str, model: nn.Module, lr: float, weight_decay: float) -> optim.Optimizer:
    """The optimiser of all parameters; Muon has to know which of them are hidden matrices."""
    if name == "muon":
        groups = [{"params": list(model.parameters())}]
        return muon(model, groups, lr=lr, weight_decay=weight_decay)
    return OPTIMIZERS[name](model.parameters(), lr=lr, weight_decay=weight_decay)
