"""The optimisers under the names of the flags; weight decay for what should have it."""

from functools import partial

import torch
from torch import nn, optim

from ViT.utils.muon import Muon, muon

OPTIMIZERS = {
    "nesterov": partial(optim.SGD, momentum=0.9, nesterov=True),
    "adamw": optim.AdamW,
    "muon": Muon,
}


def make_optimizer(
    name: str, model: nn.Module, lr: float, weight_decay: float, precision: str = "float32"
) -> optim.Optimizer:
    """Weight decay pulls on matrices and kernels alone: norms' scales and biases are not decayed
    (Jia et al., 2018, arXiv:1807.11205, section 3.2), nor what the model lists in `not_decayed`.
    Muon has to know, besides, which matrices are hidden; and where the network is computed in
    bfloat16, so are the products of Muon, as Jordan et al. have it."""
    decayed, others = [], []
    for parameter_name, parameter in model.named_parameters():
        if parameter.requires_grad:
            spared = parameter.dim() <= 1 or parameter_name in getattr(model, "not_decayed", ())
            (others if spared else decayed).append(parameter)
    pairs = ((decayed, weight_decay), (others, 0.0))
    groups = [{"params": some, "weight_decay": decay} for some, decay in pairs if some]
    if name == "muon":
        dtype = torch.bfloat16 if precision == "bfloat16" else None
        return muon(model, groups, lr=lr, dtype=dtype)
    return OPTIMIZERS[name](groups, lr=lr)
