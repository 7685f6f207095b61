"""Optimisers under the names of the flags."""

from functools import partial

from torch import nn, optim

OPTIMIZERS = {"nesterov": partial(optim.SGD, momentum=0.9, nesterov=True), "adamw": optim.AdamW}


def make_optimizer(name: str, model: nn.Module, lr: float, weight_decay: float) -> optim.Optimizer:
    """Weight decay pulls on matrices and kernels alone: norms' scales and biases are not decayed
    (Jia et al., 2018, arXiv:1807.11205, section 3.2)."""
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in learned if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in learned if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return OPTIMIZERS[name]([group for group in groups if group["params"]], lr=lr)
